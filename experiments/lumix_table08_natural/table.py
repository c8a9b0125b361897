"""LUMix Table 8: DeiT-S with and without LUMix on ImageNet-A and -O, or on stand-ins made by the same recipe."""

from pathlib import Path

from evaluation.evaluation import Evaluation
from experiments.claims import Claim, Greater
from experiments.methods import lumix
from experiments.scale import Scale
from experiments.table import Column, Row, Table


def build(scale: Scale) -> Table:
    setting = scale.setting("adversarial")
    base = setting.base("deit_s")
    runs = {"deit_s": base, "lumix": lumix(base)}
    columns = _columns(setting.evaluations["natural"])
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
        sources=tuple(map(setting.base, setting.sources)),
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
