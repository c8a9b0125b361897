"""LUMix Table 3: DeiT-S under six pairs of weights r1 (random ratio) and r2 (predicted ratio), without R."""

from functools import partial
from pathlib import Path

from experiments.claims import Claim, Close, EachGreater, Greater
from experiments.methods import components, same
from experiments.scale import Scale
from experiments.table import TOP1, Column, Table, top1_row

# id, r1, r2
RATIOS = (
    ("r00_00", 0.0, 0.0),
    ("r10_00", 1.0, 0.0),
    ("r05_00", 0.5, 0.0),
    ("r04_01", 0.4, 0.1),
    ("r03_02", 0.3, 0.2),
    ("r00_05", 0.0, 0.5),
)
NONE, ONE, *HALVES = ((row, "top1") for row, _, _ in RATIOS)
BEST = ("r04_01", "top1")


def build(scale: Scale) -> Table:
    return Table(
        id="lumix_table03_ratios",
        title="Weights of the random (r1) and the predicted ratio (r2), DeiT-S, without R",
        paper_table="Table 3",
        folder=Path(__file__).parent,
        label_columns=(Column("r1", "r1"), Column("r2", "r2")),
        value_columns=(TOP1,),
        rows=tuple(
            top1_row(
                scale,
                id,
                {"r1": f"{r1:.1f}", "r2": f"{r2:.1f}"},
                partial(components, r_r=r1, r_s=r2) if r1 + r2 else same,
            )
            for id, r1, r2 in RATIOS
        ),
        claims=CLAIMS,
        baseline=NONE,
    )


CLAIMS = (
    Claim(
        "ratios-half",
        "Every pair with r1 + r2 = 0.5 beats the baseline",
        "Table 3",
        (),
        EachGreater(tuple((cell, NONE) for cell in HALVES)),
    ),
    Claim(
        "ratios-flat",
        "Changing r1 and r2 matters by 0.1 points at most (said without a limit; Table 3's own cells show it only "
        "among the pairs with r1 + r2 = 0.5, while (1, 0) and (0.5, 0) are 0.6 apart)",
        "Table 3 and its text",
        ("I-14b",),
        Close(tuple(HALVES), 0.1),
    ),
    Claim(
        "ratios-random",
        "Wholly random labels, r1 = 1, cost accuracy (Table 3's cells: 79.7 against 79.8)",
        "Table 3 and its text",
        ("I-15",),
        Greater((NONE,), (ONE,)),
    ),
    Claim(
        "ratios-best",
        "(0.4, 0.1) is the best pair (Table 3: 80.4; Table 10's best row, with the same weights, prints 80.6)",
        "Tables 3 and 10",
        ("I-24",),
        EachGreater(tuple((BEST, cell) for cell in (NONE, ONE, *HALVES) if cell != BEST)),
    ),
)
