"""LUMix Table 7: top-1 accuracy of DeiT-S on images cut into a grid of patches and shuffled."""

from evaluation.arguments import AVERAGED, GRIDS
from experiments.methods import HEADLINE_ROLE, lumix, same
from experiments.scale import Scale
from experiments.table import Column, Row, Table

METHODS = {"base": ("DeiT-S", same), "lumix": ("DeiT-S + LUMix", lumix)}
AVERAGE = "average"


def build(scale: Scale) -> Table:
    evaluation = scale.setting("deit").evaluations["shuffling"]
    grids = evaluation.arguments["grids"]
    return Table(
        title="Robustness to shuffled patches, DeiT-S",
        paper_table="Table 7",
        label_columns=(Column("patches", "Grid size (patches)"),),
        value_columns=tuple(Column(id, title, evaluation) for id, (title, _) in METHODS.items()),
        rows=_rows(scale, grids),
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
