"""LUMix Table 7: top-1 accuracy of DeiT-S on images cut into a grid of patches and shuffled."""

from pathlib import Path

from evaluation.arguments import AVERAGED, GRIDS
from experiments.claims import Claim, EachGreater, Greater, WithinPaper
from experiments.methods import HEADLINE_ROLE, lumix, same
from experiments.scale import Scale
from experiments.table import Column, Row, Table

METHODS = {"base": ("DeiT-S", same), "lumix": ("DeiT-S + LUMix", lumix)}
AVERAGE = "average"


def build(scale: Scale) -> Table:
    evaluation = scale.setting("deit").evaluations["shuffling"]
    grids = evaluation.arguments["grids"]
    return Table(
        id="lumix_table07_shuffling",
        title="Robustness to shuffled patches, DeiT-S",
        paper_table="Table 7",
        folder=Path(__file__).parent,
        label_columns=(Column("patches", "Grid size (patches)"),),
        value_columns=tuple(Column(id, title, evaluation) for id, (title, _) in METHODS.items()),
        rows=_rows(scale, grids),
        claims=_claims([grid for grid in grids if grid in AVERAGED and grid > 1]),
        metric="top-1 accuracy on shuffled images, %",
    )


def _rows(scale: Scale, grids: list[int]) -> tuple[Row, ...]:
    runs = {id: method(scale.base("deit", HEADLINE_ROLE)) for id, (_, method) in METHODS.items()}
    averaged = [str(grid) for grid in grids if grid in AVERAGED]
    unavailable = "such patches do not divide the images of this scale, or are smaller than a token of its net"
    rows = [
        Row(
            id=f"grid_{grid}",
            labels={"patches": str(grid)},
            runs=runs if grid in grids else {},
            ours=grid not in AVERAGED,
            unavailable="" if grid in grids else unavailable,
            metrics=dict.fromkeys(METHODS, f"grid_{grid}"),
        )
        for grid in GRIDS
    ]
    note = f"of grid sizes {', '.join(averaged)}" if len(averaged) < len(AVERAGED) else ""
    metrics = dict.fromkeys(METHODS, AVERAGE)
    return (*rows, Row(AVERAGE, {"patches": "average"}, runs, note=note, metrics=metrics))


def _claims(grids: list[int]) -> tuple[Claim, ...]:
    return (
        Claim(
            "shuffling-average",
            "On average over the grid sizes LUMix is the more robust to shuffled patches (the text says 62.3 against "
            "61.8; Table 7's own averages are 67.8 and 67.3, which is also +0.5)",
            "section 4.4, Table 7",
            ("I-28",),
            Greater(((AVERAGE, "lumix"),), ((AVERAGE, "base"),)),
        ),
        Claim(
            "shuffling-every",
            f"LUMix is ahead at every grid size that shuffles ({', '.join(map(str, grids))} patches here)",
            "Table 7",
            (),
            EachGreater(tuple(((f"grid_{grid}", "lumix"), (f"grid_{grid}", "base")) for grid in grids)),
        ),
        Claim(
            "shuffling-tokens",
            "LUMix is ahead when 196 patches are shuffled (the text goes so far; Table 7 stops at 64)",
            "section 4.4",
            ("I-29",),
            Greater((("grid_196", "lumix"),), (("grid_196", "base"),)),
        ),
        Claim(
            "shuffling-average-size",
            "LUMix gains 0.5 points on average, within 0.5 (Table 7's averages; those of the text lie 5.5 lower)",
            "Table 7",
            ("I-28",),
            WithinPaper((AVERAGE, "lumix"), 0.5, to=(AVERAGE, "base")),
        ),
        Claim(
            "shuffling-baseline",
            "DeiT-S reaches 79.9 on images that are not shuffled, within 0.4 (every other table prints 79.8)",
            "Table 7",
            ("I-22",),
            WithinPaper(("grid_1", "base"), 0.4),
        ),
    )
