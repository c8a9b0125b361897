"""Decoupled Mixup Figure A2, middle and right: top-1 over xi and t of DM(BCE), ResNet-34 under RSB A3."""

from experiments import curves
from experiments.scale import Scale
from experiments.table import Column, Table


def build(scale: Scale) -> Table:
    return Table(
        title="ξ and t of DM(BCE), ResNet-34",
        paper_table="Figure A2, middle and right",
        label_columns=(Column("method", "Method"),),
        value_columns=curves.columns("xi", "t"),
        rows=tuple(curves.row(scale, name, "rsb_a3", "resnet34", "xi", "t") for name in curves.BEST["xi"]),
        statistic="median_last",
        setting=scale.setting("rsb_a3").text,
    )
