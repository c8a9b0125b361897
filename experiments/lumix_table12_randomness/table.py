"""LUMix Table 12: DeiT-S with patches shuffled after mixing, and with one random ratio for each patch."""

from functools import partial
from pathlib import Path

from experiments.claims import Claim, Close, Greater
from experiments.methods import lumix, random_lambda, random_shuffle, same
from experiments.scale import Scale
from experiments.table import TOP1, Column, Method, Table, top1_row


def _rows(patch: int) -> tuple[tuple[str, str, str, str, Method, str, bool], ...]:
    shuffle, grid = partial(random_shuffle, patch=patch), partial(random_lambda, patch=patch)
    side = f"patches of {patch} x {patch} pixels"
    # id, Random Shuffling, LUMix, Random lambda, method, note, ours
    return (
        ("shuffle", "yes", "", "", shuffle, side, False),
        ("shuffle_lumix", "yes", "yes", "", lambda run: lumix(shuffle(run)), side, False),
        ("lumix", "", "yes", "", lumix, "", False),
        ("random_lambda", "", "", "yes", grid, f"{side}; in place of Mixup and CutMix", False),
        ("none", "", "", "", same, "the baseline of Tables 1 and 2, not printed in Table 12", True),
    )


def build(scale: Scale) -> Table:
    return Table(
        id="lumix_table12_randomness",
        title="More randomness, DeiT-S",
        paper_table="Table 12",
        folder=Path(__file__).parent,
        label_columns=(Column("shuffle", "Random shuffling"), Column("lumix", "LUMix"), Column("grid", "Random λ")),
        value_columns=(TOP1,),
        rows=tuple(
            top1_row(scale, id, {"shuffle": shuffled, "lumix": with_lumix, "grid": grid}, method, ours=ours, note=note)
            for id, shuffled, with_lumix, grid, method, note, ours in _rows(scale.patch)
        ),
        claims=CLAIMS,
        baseline=NONE,
    )


SHUFFLE, SHUFFLE_LUMIX, LUMIX, RANDOM_LAMBDA, NONE = (
    (row, "top1") for row in ("shuffle", "shuffle_lumix", "lumix", "random_lambda", "none")
)
CLAIMS = (
    Claim(
        "randomness-shuffle",
        "Random shuffling alone leaves the baseline where it is, to 0.4 points (Table 12: 79.8, as the baseline of the "
        "other tables; the text says that shuffling reduces accuracy)",
        "Table 12 and its text",
        ("I-32", "I-18"),
        Close((SHUFFLE, NONE), 0.4),
    ),
    Claim(
        "randomness-shuffle-lumix",
        "Random shuffling reduces the accuracy of LUMix (80.6 to 80.4)",
        "Table 12 and its text",
        ("I-32",),
        Greater((LUMIX,), (SHUFFLE_LUMIX,)),
    ),
    Claim(
        "randomness-random-lambda",
        "Random lambda reduces accuracy (79.8 of the baseline to 79.1)",
        "Table 12 and its text",
        ("I-18", "I-32"),
        Greater((NONE,), (RANDOM_LAMBDA,)),
    ),
    Claim(
        "randomness-lumix",
        "LUMix helps on shuffled images as well (79.8 to 80.4)",
        "Table 12",
        (),
        Greater((SHUFFLE_LUMIX,), (SHUFFLE,)),
    ),
)
