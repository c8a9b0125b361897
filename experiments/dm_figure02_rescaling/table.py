"""Decoupled Mixup Figure A2, middle and right: top-1 over xi and t of DM(BCE), ResNet-34 under RSB A3."""

from pathlib import Path

from experiments import curves, decoupled
from experiments.claims import Claim
from experiments.scale import Scale
from experiments.table import Column, Table

METHODS = ("cutmix", "mixup", "manifoldmix")


def build(scale: Scale) -> Table:
    return Table(
        id="dm_figure02_rescaling",
        title="ξ and t of DM(BCE), ResNet-34",
        paper_table="Figure A2, middle and right",
        folder=Path(__file__).parent,
        label_columns=(Column("method", "Method"),),
        value_columns=(*curves.XI.columns, *curves.T.columns),
        rows=tuple(
            curves.row(scale, name, "rsb_a3", "resnet34", (curves.XI, curves.T))
            for name in (*METHODS, *decoupled.NOT_YET)
            if name != "samix"
        ),
        claims=CLAIMS,
        baseline=None,
        setting=scale.setting("rsb_a3").text,
    )


CLAIMS = tuple(
    Claim(
        f"dm-{curve.id}-{name}",
        f"{decoupled.TITLES[name]}, which {how}, is best at {curve.symbol} = {best:g} where {other}",
        "Figure A2, appendix C.5",
        ("D-8",),
        curve.peak(name, best),
    )
    for name, how, xi, t in (
        ("cutmix", "cuts", 0.8, 1.0),
        ("mixup", "blends", 1.0, 0.5),
        ("manifoldmix", "blends", 1.0, 0.5),
    )
    for curve, best, other in ((curves.XI, xi, f"t = {t:g}"), (curves.T, t, f"ξ = {xi:g}"))
)
