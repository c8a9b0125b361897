"""LUMix Table 2: DeiT-S with the predicted ratio, the random ratio, both, and both with the regulariser R."""

from functools import partial

from experiments.methods import components, lumix, same
from experiments.scale import Scale
from experiments.table import Table, Top1Row, top1_table

LABELS = {"lam_s": "λs", "lam_r": "λr", "r": "R"}
ROWS: tuple[Top1Row, ...] = (
    ("none", ("", "", ""), same, "", False),
    ("lam_s", ("yes", "", ""), partial(components, r_r=0.0, r_s=0.5), "weight 0.5", False),
    ("lam_r", ("", "yes", ""), partial(components, r_r=0.5, r_s=0.0), "weight 0.5", False),
    ("lam_s_lam_r", ("yes", "yes", ""), partial(components, r_r=0.4, r_s=0.1), "weights 0.1 and 0.4", False),
    ("full", ("yes", "yes", "yes"), lumix, "weights 0.1 and 0.4, eta 1", False),
)


def build(scale: Scale) -> Table:
    return top1_table(scale, "Components of LUMix, DeiT-S", "Table 2", LABELS, ROWS)
