"""LUMix Table 12: DeiT-S with patches shuffled after mixing, and with one random ratio for each patch."""

from functools import partial

from experiments.methods import lumix, random_lambda, random_shuffle, same
from experiments.scale import Scale
from experiments.table import Table, Top1Row, top1_table


def _rows(patch: int) -> tuple[Top1Row, ...]:
    shuffle, grid = partial(random_shuffle, patch=patch), partial(random_lambda, patch=patch)
    side = f"patches of {patch} x {patch} pixels"
    return (
        ("shuffle", ("yes", "", ""), shuffle, side, False),
        ("shuffle_lumix", ("yes", "yes", ""), lambda run: lumix(shuffle(run)), side, False),
        ("lumix", ("", "yes", ""), lumix, "", False),
        ("random_lambda", ("", "", "yes"), grid, f"{side}; in place of Mixup and CutMix", False),
        ("none", ("", "", ""), same, "the baseline of Tables 1 and 2, not printed in Table 12", True),
    )


def build(scale: Scale) -> Table:
    labels = {"shuffle": "Random shuffling", "lumix": "LUMix", "grid": "Random λ"}
    return top1_table(scale, "More randomness, DeiT-S", "Table 12", labels, _rows(scale.patch))
