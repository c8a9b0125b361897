"""Decoupled Mixup Table A8: 15, 30 and 50 percent of the training images, the same for every method."""

from pathlib import Path

from experiments import decoupled
from experiments.claims import Cell, Claim, Greater
from experiments.decoupled import DM_ALPHA, DM_CE, MCE, LossColumn
from experiments.scale import Scale
from experiments.table import Column, Row, Table

SHARES = (0.15, 0.3, 0.5)
METHODS = ("mixup", "cutmix", "saliencymix", "puzzlemix")
LOSSES = (MCE, DM_CE, DM_ALPHA)


def build(scale: Scale) -> Table:
    return Table(
        id="dm_table08_limited_labels",
        title="Few labels, ResNet-18",
        paper_table="Table A8",
        folder=Path(__file__).parent,
        label_columns=(Column("method", "Method"), Column("share", "Training images")),
        value_columns=decoupled.columns(LOSSES),
        rows=tuple(row for share in SHARES for row in _rows(scale, share)),
        claims=CLAIMS,
        statistic="median_last",
        setting=scale.setting("cifar100").text,
        seeds=scale.more_seeds,
        headline=tuple((f"{name}_15", loss.id) for name in ("mixup", "cutmix") for loss in LOSSES),
    )


def _rows(scale: Scale, share: float) -> tuple[Row, ...]:
    percent = f"{100 * share:g}"
    of = {"share": f"{percent} %"}
    if reason := scale.setting("cifar100").unavailable.get(percent, ""):
        titles = {"vanilla": "Vanilla"} | {name: decoupled.TITLES[name] for name in METHODS}
        return tuple(
            Row(f"{name}_{percent}", {"method": title, **of}, {}, unavailable=reason) for name, title in titles.items()
        )
    plain = decoupled.limited(scale.base("cifar100", "resnet18"), share)
    return (
        Row(
            f"vanilla_{percent}",
            {"method": "Vanilla", **of},
            {MCE.id: plain},
            unavailable="nothing is mixed: there is one loss",
        ),
        *(
            decoupled.row(scale, name, "cifar100", "resnet18", LOSSES, share=share, suffix=percent, labels=of)
            for name in METHODS
        ),
    )


def _cells(loss: LossColumn, percent: str) -> tuple[Cell, ...]:
    return tuple((f"{name}_{percent}", loss.id) for name in METHODS)


CLAIMS = (
    *(
        Claim(
            f"dm-limited-{percent}",
            f"With {percent} % of the labels DM(CE) gains on average over four methods (the paper: {gain})",
            "Table A8",
            ("D-5",),
            Greater(_cells(DM_CE, percent), _cells(MCE, percent)),
        )
        for percent, gain in (("15", "+1.36"), ("30", "+1.14"), ("50", "+1.48"))
    ),
    Claim(
        "dm-limited-mixup",
        "With 15 % of the labels Mixup with DM(CE) gains over MCE (the text: 2 points; the cells: 2.16)",
        "appendix C.4, Table A8",
        ("D-5",),
        Greater((("mixup_15", "dm_ce"),), (("mixup_15", "mce"),)),
    ),
    Claim(
        "dm-limited-vanilla",
        "With 15 % of the labels Mixup with DM(CE) beats training without mixing (42.48 to 44.39)",
        "Table A8",
        ("D-18",),
        Greater((("mixup_15", "dm_ce"),), (("vanilla_15", "mce"),)),
    ),
    Claim(
        "dm-limited-alpha",
        "The gain at 15 % is the loss's: it remains over MCE with DM's alpha (ours)",
        "appendix B.3",
        ("D-10",),
        Greater(_cells(DM_CE, "15"), _cells(DM_ALPHA, "15")),
    ),
)
