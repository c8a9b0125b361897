"""Decoupled Mixup Figure A2, middle and right: top-1 over xi and t of DM(BCE), ResNet-34 under RSB A3."""

from experiments import curves
from experiments.scale import Scale
from experiments.table import Table


def build(scale: Scale) -> Table:
    return curves.table(scale, "ξ and t of DM(BCE), ResNet-34", "middle and right", "rsb_a3", "xi", "t")
