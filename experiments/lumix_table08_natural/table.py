"""LUMix Table 8: DeiT-S with and without LUMix on ImageNet-A and -O, or on stand-ins made by the same recipe."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.claims import Claim, Greater
from experiments.methods import lumix
from experiments.scale import Scale
from experiments.scales import mini
from experiments.table import Column, Row, Table
from lumix.evaluate.evaluation import Evaluation
from lumix.train.config import Run

REFERENCE_ROLE = "resnet50"  # filters the stand-ins; ImageNet-A and -O were filtered by a ResNet-50 too


@dataclass(frozen=True)
class Setting:
    """What Table 8 is at one scale: the base run, the run that filters the images, and how many there are."""

    base: Run
    text: str
    reference: Run | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def evaluation(self) -> Evaluation:
        if self.reference is None:
            return Evaluation("natural_adversarial")
        # One reference model, that of seed 0, for all seeds: else each seed would have a test set of its own.
        return Evaluation("natural_adversarial", self.arguments | {"reference": {"key": self.reference.key, "seed": 0}})


def _setting(scale: Scale) -> Setting:
    if scale.name == "mini":
        return Setting(
            mini.shapes_run("deit_s"),
            "2000 procedural scenes of ten shapes, 16x16 pixels, a tiny DeiT-S, one CPU thread. In place of "
            "ImageNet-A, fresh scenes of 8 shapes that a tiny ResNet gets wrong; in place of ImageNet-O, those scenes "
            "of 5 untrained shapes that it is surest about, against test scenes of 8 shapes. This says nothing about "
            "ImageNet.",
            mini.shapes_run(REFERENCE_ROLE),
            {
                "classes": list(range(8)),
                "known_classes": list(range(2, 10)),
                "pool": 10_000,
                "unknown_pool": 1000,
                "share": 0.2,
            },
        )
    if scale.name == "lab":
        return Setting(
            scale.run("deit_s"),
            "CIFAR-100 at 32 pixels, a small DeiT-S, one GPU. In place of ImageNet-A, CIFAR-100 test images of 50 "
            "classes that a ResNet-18 gets wrong; in place of ImageNet-O, those Tiny-ImageNet images of classes "
            "foreign to CIFAR-100 that it is surest about, against test images of 50 classes.",
            scale.run(REFERENCE_ROLE),
            {
                "classes": [index for index in range(100) if index % 4 in (0, 1)],
                "known_classes": [index for index in range(100) if index % 4 in (1, 2)],
                "unknown_pool": 5000,
                "share": 0.2,
            },
        )
    return Setting(
        scale.run("deit_s"),
        "DeiT-S of the paper's recipe on ImageNet-A (7500 images) and on ImageNet-O (2000 images against the 10000 "
        "validation images of the same 200 classes), logits restricted to the 200 classes first.",
    )


def build(scale: Scale) -> Table:
    setting = _setting(scale)
    runs = {"deit_s": setting.base, "lumix": lumix(setting.base)}
    columns = _columns(setting.evaluation)
    names = {"deit_s": "DeiT-S", "lumix": "LUMix-DeiT-S"}
    return Table(
        id="lumix_table08_natural",
        title="Natural adversarial images (A) and unknown classes (O), DeiT-S",
        paper_table="Table 8",
        folder=Path(__file__).parent,
        label_columns=(Column("model", "Model"),),
        value_columns=columns,
        rows=tuple(
            Row(id, {"model": names[id]}, {column.id: run for column in columns}, compared_with="deit_s")
            for id, run in runs.items()
        ),
        claims=CLAIMS,
        metric="%; the last four columns are ours",
        sources=() if setting.reference is None else (setting.reference,),
        setting=setting.text,
    )


def _columns(evaluation: Evaluation) -> tuple[Column, ...]:
    def column(id: str, title: str, lower_is_better: bool = False) -> Column:
        return Column(id, title, evaluation, metric=id, lower_is_better=lower_is_better)

    return (
        column("top1", "A: Top-1"),
        column("calibration_error", "A: Calib. error", lower_is_better=True),
        column("aurra", "A: AURRA"),
        column("aupr", "O: AUPR"),
        column("calibration_error_all_bins", "A: Calib. error, all bins", lower_is_better=True),
        column("auroc", "O: AUROC"),
        column("fpr95", "O: FPR95", lower_is_better=True),
        Column("clean", "Clean Top-1"),
    )


def _better(metric: str) -> Greater:
    """LUMix above the baseline; below it where lower is better."""
    cells = (("lumix", metric),), (("deit_s", metric),)
    return Greater(*(reversed(cells) if metric.startswith("calibration_error") else cells))


CLAIMS = (
    Claim(
        "natural-top1",
        "LUMix is more accurate on natural adversarial images (19.1 to 19.9)",
        "Table 8 and section 4.4",
        ("I-36",),
        _better("top1"),
    ),
    Claim(
        "natural-calibration",
        "LUMix is better calibrated on natural adversarial images (RMS error 32.0 to 31.5, the most confident bin left "
        "out as in the published script)",
        "Table 8 and section 4.4",
        (),
        _better("calibration_error"),
    ),
    Claim(
        "natural-calibration-all-bins",
        "The same with every bin counted, which the paper does not print",
        "Table 8, ours",
        (),
        _better("calibration_error_all_bins"),
    ),
    Claim(
        "natural-aurra",
        "LUMix knows better when to abstain (AURRA 23.8 to 27.4)",
        "Table 8 and section 4.4",
        (),
        _better("aurra"),
    ),
    Claim(
        "natural-aupr",
        "LUMix detects images of unknown classes better (AUPR 20.9 to 21.3)",
        "Table 8 and section 4.4",
        (),
        _better("aupr"),
    ),
)
