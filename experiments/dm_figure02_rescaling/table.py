"""Decoupled Mixup Figure A2, middle and right: top-1 over xi and t of DM(BCE), ResNet-34 under RSB A3."""

from pathlib import Path

from experiments import curves, decoupled
from experiments.claims import Claim
from experiments.scale import Scale
from experiments.table import Column, Table


def build(scale: Scale) -> Table:
    return Table(
        id="dm_figure02_rescaling",
        title="ξ and t of DM(BCE), ResNet-34",
        paper_table="Figure A2, middle and right",
        folder=Path(__file__).parent,
        label_columns=(Column("method", "Method"),),
        value_columns=(*curves.XI.columns, *curves.T.columns),
        rows=tuple(curves.row(scale, name, "rsb_a3", "resnet34", (curves.XI, curves.T)) for name in curves.BEST["xi"]),
        claims=CLAIMS,
        baseline=None,
        setting=scale.setting("rsb_a3").text,
    )


CLAIMS = tuple(
    Claim(
        f"dm-{curve.id}-{name}",
        f"{decoupled.TITLES[name]}, which {'cuts' if name in curves.CUTS else 'blends'}, is best at "
        f"{curve.symbol} = {curves.best(curve.id, name):g} where {other.symbol} = {curves.best(other.id, name):g}",
        "Figure A2, appendix C.5",
        ("D-8",),
        curve.peak(name, curves.best(curve.id, name)),
    )
    for name in curves.BEST["xi"]
    for curve, other in ((curves.XI, curves.T), (curves.T, curves.XI))
)
