"""Decoupled Mixup Figure A2, left: top-1 over eta of DM(CE), ResNet-34 under the plain ImageNet recipe."""

from pathlib import Path

from experiments import curves, decoupled
from experiments.claims import Claim
from experiments.scale import Scale
from experiments.table import Column, Table


def build(scale: Scale) -> Table:
    return Table(
        id="dm_figure02_eta",
        title="η of DM(CE), ResNet-34",
        paper_table="Figure A2, left",
        folder=Path(__file__).parent,
        label_columns=(Column("method", "Method"),),
        value_columns=curves.ETA.columns,
        rows=tuple(curves.row(scale, name, "pytorch", "resnet34", (curves.ETA,)) for name in curves.BEST["eta"]),
        claims=CLAIMS,
        baseline=None,
        setting=scale.setting("pytorch").text,
    )


CLAIMS = tuple(
    Claim(
        f"dm-eta-{name}",
        f"{decoupled.TITLES[name]}, a {'dynamic' if name in decoupled.DYNAMIC else 'static'} method, is best at "
        f"η = {best:g} of five",
        "Figure A2, appendix C.5",
        ("D-8",),
        curves.ETA.peak(name, best),
    )
    for name, best in curves.BEST["eta"].items()
)
