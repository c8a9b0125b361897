"""LUMix Table 4: semantic segmentation from weights pre-trained with and without LUMix, beside DeepLabV3+."""

from evaluation.evaluation import Evaluation
from experiments.methods import lumix
from experiments.scale import Scale
from experiments.table import Column, Row, Table
from training.config import Run


def build(scale: Scale) -> Table:
    setting = scale.setting("segmentation")
    vit = setting.base("deit_s")
    segmenter, deeplab = setting.evaluations["segmenter"], setting.evaluations["deeplab"]
    rows = {
        "deeplab": (("ResNet101", "Deeplabv3+", ""), setting.base("resnet101"), deeplab, setting.notes["deeplab"]),
        "segmenter": (("DeiT-S", "Segmenter", ""), vit, segmenter, ""),
        "segmenter_lumix": (("DeiT-S", "Segmenter", "yes"), lumix(vit), segmenter, ""),
    }
    return Table(
        title="Semantic segmentation",
        paper_table="Table 4",
        evaluated_seeds=scale.alone_seeds,
        label_columns=LABELS,
        value_columns=COLUMNS,
        rows=tuple(_row(id, *row) for id, row in rows.items()),
        metric="mean accuracy and mean intersection over union of the classes, %",
        setting=setting.text,
    )


def _row(id: str, labels: tuple[str, str, str], run: Run, evaluation: Evaluation, note: str) -> Row:
    columns = [column.id for column in COLUMNS]
    return Row(
        id,
        {column.id: label for column, label in zip(LABELS, labels, strict=True)},
        dict.fromkeys(columns, run),
        note=note,
        compared_with="segmenter",
        evaluations=dict.fromkeys(columns, evaluation),
    )


LABELS = (Column("backbone", "Backbone"), Column("decoder", "Decoder"), Column("lumix", "LUMix-pretrained"))
COLUMNS = (
    Column("macc", "mAcc", metric="macc"),
    Column("miou", "mIoU", metric="miou"),
    Column("miou_ms", "mIoU (MS)", metric="miou_ms"),
)
