"""Decoupled Mixup Figure A2, left: top-1 over eta of DM(CE), ResNet-34 under the plain ImageNet recipe."""

from experiments import curves
from experiments.scale import Scale
from experiments.table import Column, Table


def build(scale: Scale) -> Table:
    return Table(
        title="η of DM(CE), ResNet-34",
        paper_table="Figure A2, left",
        label_columns=(Column("method", "Method"),),
        value_columns=curves.columns("eta"),
        rows=tuple(curves.row(scale, name, "pytorch", "resnet34", "eta") for name in curves.BEST["eta"]),
        statistic="median_last",
        setting=scale.setting("pytorch").text,
    )
