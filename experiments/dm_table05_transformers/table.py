"""Decoupled Mixup Table A5: MCE and DM(CE) on DeiT-S and Swin-T under their own recipes."""

from pathlib import Path

from experiments import decoupled
from experiments.claims import Claim, Greater
from experiments.decoupled import DM_CE, MCE, STATIC_ETA, cells, each
from experiments.scale import Scale
from experiments.table import Column, Row, Table

LOSSES = (MCE, DM_CE)
SINGLE = ("saliencymix", "puzzlemix", *decoupled.LEARNING)
METHODS = ("switch", *SINGLE)
# role, title, the paper's average gain without and with the row of the switch
MODELS = (("deit_s", "DeiT-S", "+0.32", "+0.37"), ("swin_t", "Swin-T", "+0.13", "+0.14"))


def build(scale: Scale) -> Table:
    return Table(
        id="dm_table05_transformers",
        title="DeiT-S and Swin-T",
        paper_table="Table A5",
        folder=Path(__file__).parent,
        label_columns=(Column("model", "Model"), Column("method", "Method")),
        value_columns=decoupled.columns(LOSSES),
        rows=tuple(row for role, model, *_ in MODELS for row in _rows(scale, role, model)),
        claims=CLAIMS,
    )


def _rows(scale: Scale, role: str, model: str) -> tuple[Row, ...]:
    base, of = scale.base("deit", role), {"model": model}
    switch = {MCE.id: base, DM_CE.id: decoupled.decoupled(base, STATIC_ETA)}
    return (
        Row(f"switch_{role}", {"method": "DeiT (Mixup and CutMix)", **of}, switch),
        *(decoupled.row(scale, name, "deit", role, LOSSES, suffix=role, labels=of) for name in SINGLE),
    )


CLAIMS = (
    Claim(
        "dm-transformers-each",
        "DM(CE) improves every method on both networks",
        "Table A5",
        (),
        each(
            (cell for role, *_ in MODELS for cell in cells(METHODS, DM_CE, role)),
            (cell for role, *_ in MODELS for cell in cells(METHODS, MCE, role)),
        ),
    ),
    *(
        Claim(
            f"dm-transformers-{role}{suffix}".replace("_", "-"),
            f"On {model} DM(CE) gains on average {which} (the paper: {gain})",
            "Table A5",
            ("D-2",),
            Greater(cells(names, DM_CE, role), cells(names, MCE, role)),
        )
        for role, model, without, with_it in MODELS
        for suffix, which, gain, names in (
            ("", "without the row DeiT", without, SINGLE),
            ("-all", "over all rows", with_it, METHODS),
        )
    ),
    Claim(
        "dm-transformers-switch",
        "DM(CE) improves DeiT's own mixing by most on DeiT-S (0.57)",
        "Table A5",
        (),
        Greater((("switch_deit_s", DM_CE.id),), (("switch_deit_s", MCE.id),)),
    ),
)
