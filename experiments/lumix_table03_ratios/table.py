"""LUMix Table 3: DeiT-S under six pairs of weights r1 (random ratio) and r2 (predicted ratio), without R."""

from functools import partial

from experiments.methods import components, same
from experiments.scale import Scale
from experiments.table import Table, Top1Row, top1_table


def _row(id: str, r1: float, r2: float) -> Top1Row:
    method = partial(components, r_r=r1, r_s=r2) if r1 + r2 else same
    return id, (f"{r1:.1f}", f"{r2:.1f}"), method, "", False


RATIOS = (
    ("r00_00", 0.0, 0.0),
    ("r10_00", 1.0, 0.0),
    ("r05_00", 0.5, 0.0),
    ("r04_01", 0.4, 0.1),
    ("r03_02", 0.3, 0.2),
    ("r00_05", 0.0, 0.5),
)


def build(scale: Scale) -> Table:
    title = "Weights of the random (r1) and the predicted ratio (r2), DeiT-S, without R"
    return top1_table(scale, title, "Table 3", {"r1": "r1", "r2": "r2"}, (_row(*row) for row in RATIOS), "r00_00")
