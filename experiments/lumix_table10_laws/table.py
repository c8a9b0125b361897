"""LUMix Table 10: DeiT-S with LUMix in full, the random ratio drawn from five laws, and three readings of ours."""

from functools import partial
from pathlib import Path

from experiments.claims import Claim, Close, EachGreater, Greater, WithinPaper
from experiments.methods import lumix, same
from experiments.scale import Scale
from experiments.table import TOP1, Column, Method, Table, top1_row
from lumix import BetaLaw, NormalLaw


def _normal(deviation: float, reading: str = "raw") -> Method:
    return partial(lumix, law=NormalLaw(scale=deviation, reading=reading))


def _beta(alpha: float) -> Method:
    return partial(lumix, law=BetaLaw(alpha=alpha))


CLAMPED = "final ratio clamped to [0, 1]"
# id, law, method, note, ours
ROWS: tuple[tuple[str, str, Method, str, bool], ...] = (
    ("none", "none", same, "", False),
    ("normal_1", "N(0, 1)", _normal(1.0), CLAMPED, False),
    ("normal_5", "N(0, 5)", _normal(5.0), f"5 read as the standard deviation; {CLAMPED}", False),
    ("beta_0.8", "Beta(0.8, 0.8)", _beta(0.8), "", False),
    ("beta_2", "Beta(2, 2)", _beta(2.0), "LUMix of all other tables", False),
    ("beta_3", "Beta(3, 3)", _beta(3.0), "", False),
    ("normal_5_variance", "N(0, 5)", _normal(2.236), f"5 read as the variance; {CLAMPED}", True),
    ("normal_1_sigmoid", "N(0, 1)", _normal(1.0, "sigmoid"), "draw mapped by the sigmoid", True),
    ("normal_1_clamp_draw", "N(0, 1)", _normal(1.0, "clamp_draw"), "draw clamped to [0, 1]", True),
)
NONE, NORMAL_1, NORMAL_5, BETA_08, BETA_2, BETA_3 = ((row[0], "top1") for row in ROWS if not row[4])


def build(scale: Scale) -> Table:
    return Table(
        id="lumix_table10_laws",
        title="Law of the random ratio λr, DeiT-S",
        paper_table="Table 10",
        folder=Path(__file__).parent,
        label_columns=(Column("law", "λr"),),
        value_columns=(TOP1,),
        rows=tuple(
            top1_row(scale, id, {"law": law}, method, ours=ours, note=note) for id, law, method, note, ours in ROWS
        ),
        claims=CLAIMS,
        baseline=NONE,
    )


CLAIMS = (
    Claim(
        "laws-every",
        "LUMix beats the baseline under every law of λr, N(0, 1) included",
        "Table 10 and its text",
        ("I-14",),
        EachGreater(tuple((cell, NONE) for cell in (NORMAL_1, NORMAL_5, BETA_08, BETA_2, BETA_3))),
    ),
    Claim(
        "laws-best",
        "Beta(2, 2) is the best law (80.6; which weights Table 10 uses, and whether R, is not said: its caption is "
        "Table 3's)",
        "Table 10",
        ("I-9", "I-24"),
        EachGreater(tuple((BETA_2, cell) for cell in (NONE, NORMAL_1, NORMAL_5, BETA_08, BETA_3))),
    ),
    Claim(
        "laws-alpha",
        "alpha = 2 beats the alpha = 0.8 of Mixup (80.6 against 80.3)",
        "Table 10",
        ("I-9",),
        Greater((BETA_2,), (BETA_08,)),
    ),
    Claim(
        "laws-normal",
        "N(0, 1) and N(0, 5) do equally well (both 80.4), to 0.4 points",
        "Table 10",
        ("I-14",),
        Close((NORMAL_1, NORMAL_5), 0.4),
    ),
    Claim(
        "laws-best-size",
        "Beta(2, 2) reaches 80.6, within 0.4 (Table 3's best row prints 80.4)",
        "Tables 3 and 10",
        ("I-24",),
        WithinPaper(BETA_2, 0.4),
    ),
)
