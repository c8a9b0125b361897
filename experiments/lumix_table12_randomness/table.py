"""LUMix Table 12: DeiT-S with patches shuffled after mixing, and with one random ratio for each patch."""

from functools import partial

from experiments.methods import lumix, random_lambda, random_shuffle, same
from experiments.scale import Scale
from experiments.table import Column, Method, Table, top1_row


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
        title="More randomness, DeiT-S",
        paper_table="Table 12",
        label_columns=(Column("shuffle", "Random shuffling"), Column("lumix", "LUMix"), Column("grid", "Random λ")),
        rows=tuple(
            top1_row(scale, id, {"shuffle": shuffled, "lumix": with_lumix, "grid": grid}, method, ours=ours, note=note)
            for id, shuffled, with_lumix, grid, method, note, ours in _rows(scale.patch)
        ),
        baseline=("none", "top1"),
    )
