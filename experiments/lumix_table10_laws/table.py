"""LUMix Table 10: DeiT-S with LUMix in full, the random ratio drawn from five laws, and three readings of ours."""

from functools import partial
from typing import Any

from experiments.methods import lumix, same
from experiments.scale import Scale
from experiments.table import Method, Table, Top1Row, top1_table
from lumix import BetaLaw, NormalLaw


def _normal(deviation: float, reading: Any = "raw") -> Method:
    return partial(lumix, law=NormalLaw(scale=deviation, reading=reading))


def _beta(alpha: float) -> Method:
    return partial(lumix, law=BetaLaw(alpha=alpha))


CLAMPED = "final ratio clamped to [0, 1]"
ROWS: tuple[Top1Row, ...] = (
    ("none", ("none",), same, "", False),
    ("normal_1", ("N(0, 1)",), _normal(1.0), CLAMPED, False),
    ("normal_5", ("N(0, 5)",), _normal(5.0), f"5 read as the standard deviation; {CLAMPED}", False),
    ("beta_0.8", ("Beta(0.8, 0.8)",), _beta(0.8), "", False),
    ("beta_2", ("Beta(2, 2)",), _beta(2.0), "LUMix of all other tables", False),
    ("beta_3", ("Beta(3, 3)",), _beta(3.0), "", False),
    ("normal_5_variance", ("N(0, 5)",), _normal(2.236), f"5 read as the variance; {CLAMPED}", True),
    ("normal_1_sigmoid", ("N(0, 1)",), _normal(1.0, "sigmoid"), "draw mapped by the sigmoid", True),
    ("normal_1_clamp_draw", ("N(0, 1)",), _normal(1.0, "clamp_draw"), "draw clamped to [0, 1]", True),
)


def build(scale: Scale) -> Table:
    return top1_table(scale, "Law of the random ratio λr, DeiT-S", "Table 10", {"law": "λr"}, ROWS)
