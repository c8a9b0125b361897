"""LUMix Table 8: DeiT-S with and without LUMix on ImageNet-A and -O, or on stand-ins made by the same recipe."""

from evaluation.evaluation import Evaluation
from experiments.methods import components, lumix
from experiments.scale import Scale
from experiments.table import Column, Row, Table


def build(scale: Scale) -> Table:
    setting = scale.setting("adversarial")
    base = setting.base("deit_s")
    runs = {"deit_s": base, "lumix": lumix(base), "no_r": components(base, r_r=0.4, r_s=0.1)}
    columns = _columns(setting.evaluations["natural"])
    names = {"deit_s": "DeiT-S", "lumix": "LUMix-DeiT-S", "no_r": "LUMix-DeiT-S without R"}
    return Table(
        title="Natural adversarial images (A) and unknown classes (O), DeiT-S",
        paper_table="Table 8",
        label_columns=(Column("model", "Model"),),
        value_columns=columns,
        rows=tuple(
            Row(id, {"model": names[id]}, {column.id: run for column in columns}, id == "no_r", compared_with="deit_s")
            for id, run in runs.items()
        ),
        metric="%; the last five columns are ours",
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
        column("clean_ece", "Clean: Calib. error (ECE)", lower_is_better=True),
        column("auroc", "O: AUROC"),
        column("fpr95", "O: FPR95", lower_is_better=True),
        Column("clean", "Clean Top-1"),
    )
