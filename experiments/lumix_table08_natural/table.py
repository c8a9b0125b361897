"""LUMix Table 8: DeiT-S with and without LUMix on ImageNet-A and -O, or on stand-ins made by the same recipe."""

from experiments.methods import components, lumix
from experiments.scale import Scale
from experiments.table import Column, Row, Table

COLUMNS = (  # id, title, whether less is better
    ("top1", "A: Top-1", False),
    ("calibration_error", "A: Calib. error", True),
    ("aurra", "A: AURRA", False),
    ("aupr", "O: AUPR", False),
    ("calibration_error_all_bins", "A: Calib. error, all bins", True),
    ("clean_ece", "Clean: Calib. error (ECE)", True),
    ("auroc", "O: AUROC", False),
    ("fpr95", "O: FPR95", True),
)


def build(scale: Scale) -> Table:
    setting = scale.setting("adversarial")
    base, evaluation = setting.base("deit_s"), setting.evaluations["natural"]
    runs = {"deit_s": base, "lumix": lumix(base), "no_r": components(base, r_r=0.4, r_s=0.1)}
    columns = (
        *(Column(id, title, evaluation, id, less) for id, title, less in COLUMNS),
        Column("clean", "Clean Top-1"),
    )
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
