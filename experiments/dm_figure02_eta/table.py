"""Decoupled Mixup Figure A2, left: top-1 over eta of DM(CE), ResNet-34 under the plain ImageNet recipe."""

from experiments import curves
from experiments.scale import Scale
from experiments.table import Table


def build(scale: Scale) -> Table:
    return curves.table(scale, "η of DM(CE), ResNet-34", "left", "pytorch", "eta")
