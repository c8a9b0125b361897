"""Decoupled Mixup Table A8: 15, 30 and 50 percent of the training images, the same for every method."""

from experiments import decoupled
from experiments.decoupled import DM_ALPHA, DM_CE, MCE
from experiments.scale import Scale
from experiments.table import Column, Row, Table

SHARES = (0.15, 0.3, 0.5)
METHODS = ("mixup", "cutmix", "saliencymix", "puzzlemix")
PRIMARY = ("mixup", "cutmix", "puzzlemix")  # of the primary claims, at 15 %
LOSSES = (MCE, DM_CE, DM_ALPHA)
ALPHAS = "α beside MCE is 1 for Mixup and PuzzleMix, 0.2 for CutMix and SaliencyMix; else 0.2, of PuzzleMix 2."


def build(scale: Scale) -> Table:
    return Table(
        title="Few labels, ResNet-18",
        paper_table="Table A8",
        label_columns=(Column("method", "Method"), Column("share", "Training images")),
        value_columns=decoupled.columns(LOSSES),
        rows=tuple(row for share in SHARES for row in _rows(scale, share)),
        statistic="median_last",
        setting=f"{scale.setting('cifar100').text} {ALPHAS}",
        seeds=scale.more_seeds,
        headline=tuple((f"{name}_15", loss.id) for name in PRIMARY for loss in LOSSES),
    )


def _rows(scale: Scale, share: float) -> tuple[Row, ...]:
    percent = f"{100 * share:g}"
    of = {"share": f"{percent} %"}
    gain = decoupled.gain_row(percent, {DM_CE.id: f"dm-limited-{percent}"}, of)
    if reason := scale.setting("cifar100").unavailable.get(percent, ""):
        titles = {"vanilla": "Vanilla"} | {name: decoupled.TITLES[name] for name in METHODS}
        lacking = (
            Row(f"{name}_{percent}", {"method": title, **of}, {}, unavailable=reason) for name, title in titles.items()
        )
        return (*lacking, gain)
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
        gain,
    )
