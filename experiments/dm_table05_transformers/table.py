"""Decoupled Mixup Table A5: MCE and DM(CE) on DeiT-S and Swin-T under their own recipes."""

from experiments import decoupled
from experiments.decoupled import DM_CE, MCE, STATIC_ETA
from experiments.scale import Scale
from experiments.table import Column, Row, Table

LOSSES = (MCE, DM_CE)
MODELS = (("deit_s", "DeiT-S"), ("swin_t", "Swin-T"))  # role, title


def build(scale: Scale) -> Table:
    return Table(
        title="DeiT-S and Swin-T",
        paper_table="Table A5",
        label_columns=(Column("model", "Model"), Column("method", "Method")),
        value_columns=decoupled.columns(LOSSES),
        rows=tuple(row for role, model in MODELS for row in _rows(scale, role, model)),
        statistic="best",
    )


def _rows(scale: Scale, role: str, model: str) -> tuple[Row, ...]:
    base, of = scale.base("deit", role), {"model": model}
    switch = {MCE.id: base, DM_CE.id: decoupled.decoupled(base, STATIC_ETA)}
    return (
        Row(f"switch_{role}", {"method": "DeiT (Mixup and CutMix)", **of}, switch),
        *(decoupled.row(scale, name, "deit", role, LOSSES, suffix=role, labels=of) for name in decoupled.FOUR),
        decoupled.gain_row(role, {DM_CE.id: f"dm-transformers-{role.replace('_', '-')}"}, of),
    )
