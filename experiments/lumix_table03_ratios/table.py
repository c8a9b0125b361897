"""LUMix Table 3: DeiT-S under six pairs of weights r1 (random ratio) and r2 (predicted ratio), without R."""

from functools import partial

from experiments.methods import components, same
from experiments.scale import Scale
from experiments.table import Column, Table, top1_row

# id, r1, r2
RATIOS = (
    ("r00_00", 0.0, 0.0),
    ("r10_00", 1.0, 0.0),
    ("r05_00", 0.5, 0.0),
    ("r04_01", 0.4, 0.1),
    ("r03_02", 0.3, 0.2),
    ("r00_05", 0.0, 0.5),
)


def build(scale: Scale) -> Table:
    return Table(
        title="Weights of the random (r1) and the predicted ratio (r2), DeiT-S, without R",
        paper_table="Table 3",
        label_columns=(Column("r1", "r1"), Column("r2", "r2")),
        rows=tuple(
            top1_row(
                scale,
                id,
                {"r1": f"{r1:.1f}", "r2": f"{r2:.1f}"},
                partial(components, r_r=r1, r_s=r2) if r1 + r2 else same,
            )
            for id, r1, r2 in RATIOS
        ),
        baseline=("r00_00", "top1"),
    )
