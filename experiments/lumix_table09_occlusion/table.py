"""LUMix Table 9: top-1 accuracy of DeiT-S on images whose least, most attended or random patches are dropped."""

from evaluation.arguments import LOSSES
from experiments.methods import HEADLINE_ROLE, lumix, same
from experiments.scale import Scale
from experiments.table import Column, Row, Table

METHODS = {"base": ("DeiT-S", same), "lumix": ("LUMix-DeiT-S", lumix)}
LEVELS = (*map(str, LOSSES), "average")
# variant -> label; the paper shows the first
VARIANTS = {
    "non_salient": "non-salient",
    "random": "random",
    "salient": "salient",
    "non_salient_by_count": "non-salient, by count",
    "salient_by_count": "salient, by count",
}


def build(scale: Scale) -> Table:
    setting = scale.setting("deit")
    evaluation, source = setting.evaluations["occlusion"], setting.notes["attention"]
    runs = {id: method(setting.base(HEADLINE_ROLE)) for id, (_, method) in METHODS.items()}
    return Table(
        title="Robustness to dropped patches, DeiT-S",
        paper_table="Table 9",
        label_columns=(Column("dropped", "Dropped patches"), Column("loss", "Information lost, %")),
        value_columns=tuple(Column(id, title, evaluation) for id, (title, _) in METHODS.items()),
        rows=tuple(
            Row(
                id=f"{variant}_{level}",
                labels={"dropped": label, "loss": level},
                runs=runs,
                ours=variant != "non_salient",
                note=f"attention of {source}" if level == "average" and variant != "random" else "",
                metrics=dict.fromkeys(METHODS, f"{variant}_{level}"),
            )
            for variant, label in VARIANTS.items()
            for level in LEVELS
        ),
        metric="top-1 accuracy on images with dropped patches, %",
    )
