"""LUMix Table 5: how well the class attention of DeiT-S, with and without LUMix, covers and frames the object."""

from evaluation.evaluation import Evaluation
from experiments.methods import lumix
from experiments.scale import Scale
from experiments.table import Column, Row, Table


def build(scale: Scale) -> Table:
    setting = scale.setting("objects")
    base = setting.base("deit_s")
    no_masks = setting.unavailable.get("masks", "")
    names = {"deit_s": "DeiT-S", "lumix": "LUMix-DeiT-S"}
    runs = {"deit_s": base, "lumix": lumix(base)}
    columns = _columns(setting.evaluations["boxes"], setting.evaluations.get("masks"))
    shown = [column.id for column in columns if not (no_masks and column.id.startswith("segmentation"))]
    return Table(
        title="Weakly supervised segmentation and localisation by attention, DeiT-S",
        paper_table="Table 5",
        label_columns=(Column("model", "Model"),),
        value_columns=columns,
        rows=tuple(
            Row(id, {"model": names[id]}, dict.fromkeys(shown, run), unavailable=no_masks, compared_with="deit_s")
            for id, run in runs.items()
        ),
        metric="%; Jaccard index (Seg) and mean IoU of boxes (Loc)",
        setting=setting.text,
    )


def _columns(boxes: Evaluation, masks: Evaluation | None) -> tuple[Column, ...]:
    return (
        Column("segmentation", "Seg JI", masks, "jaccard"),
        Column("localisation", "Loc mIoU", boxes, "iou"),
        Column("segmentation_without_void", "Seg JI, void excluded (ours)", masks, "jaccard_exclude_void"),
        Column("localisation_mean_head", "Loc mIoU, mean of heads (ours)", boxes, "iou_mean_head"),
        Column("clean", "Clean Top-1 (ours)"),
    )
