"""Decoupled Mixup Table A3: three ResNets under the plain ImageNet recipe, MCE and DM(CE)."""

from pathlib import Path

from experiments import decoupled
from experiments.claims import Cell, Claim, EachGreater, Greater
from experiments.decoupled import DM_ALPHA, DM_CE, MCE, LossColumn
from experiments.scale import Scale
from experiments.table import Column, Table

MODELS = {"resnet18": "ResNet-18", "resnet34": "ResNet-34", "resnet50": "ResNet-50"}
METHODS = ("saliencymix", "puzzlemix")
LOSSES = (MCE, DM_CE, DM_ALPHA)


def build(scale: Scale) -> Table:
    return Table(
        id="dm_table03_imagenet",
        title="Three ResNets, 100 epochs of the plain recipe",
        paper_table="Table A3",
        folder=Path(__file__).parent,
        label_columns=(Column("method", "Method"), Column("model", "Model")),
        value_columns=decoupled.columns(LOSSES),
        rows=tuple(
            decoupled.row(scale, name, "pytorch", role, LOSSES, model=model)
            for role, model in MODELS.items()
            for name in (*METHODS, *decoupled.NOT_YET)
        ),
        claims=CLAIMS,
        setting=scale.setting("pytorch").text,
    )


def _cells(loss: LossColumn, role: str) -> tuple[Cell, ...]:
    return tuple((f"{name}_{role}", loss.id) for name in METHODS)


def _every(loss: LossColumn) -> tuple[Cell, ...]:
    return tuple(cell for role in MODELS for cell in _cells(loss, role))


CLAIMS = (
    Claim(
        "dm-imagenet-each",
        "DM(CE) improves every method on every ResNet (here of those that do not learn to mix)",
        "Table A3",
        (),
        EachGreater(tuple(zip(_every(DM_CE), _every(MCE), strict=True))),
    ),
    *(
        Claim(
            f"dm-imagenet-{role}",
            f"On {model} DM(CE) gains on average (the paper: {gain} over four methods; two of them here)",
            "Table A3",
            register,
            Greater(_cells(DM_CE, role), _cells(MCE, role)),
        )
        for (role, model), gain, register in zip(
            MODELS.items(), ("+0.20", "+0.25", "+0.23"), ((), (), ("D-4",)), strict=True
        )
    ),
    Claim(
        "dm-imagenet-alpha",
        "The gain of DM(CE) is the loss's: it remains over MCE with DM's alpha (ours)",
        "appendix B.3",
        ("D-10",),
        Greater(_every(DM_CE), _every(DM_ALPHA)),
    ),
)
