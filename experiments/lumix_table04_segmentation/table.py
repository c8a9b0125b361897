"""LUMix Table 4: semantic segmentation from weights pre-trained with and without LUMix, beside DeepLabV3+."""

from experiments.methods import lumix
from experiments.scale import Scale
from experiments.table import Column, Row, Table

LABELS = {"backbone": "Backbone", "decoder": "Decoder", "lumix": "LUMix-pretrained"}
COLUMNS = {"macc": "mAcc", "miou": "mIoU", "miou_ms": "mIoU (MS)"}


def build(scale: Scale) -> Table:
    setting = scale.setting("segmentation")
    vit = setting.base("deit_s")
    rows = {  # labels, run, its evaluation, note
        "deeplab": (("ResNet101", "Deeplabv3+", ""), setting.base("resnet101"), "deeplab", setting.notes["deeplab"]),
        "segmenter": (("DeiT-S", "Segmenter", ""), vit, "segmenter", ""),
        "segmenter_lumix": (("DeiT-S", "Segmenter", "yes"), lumix(vit), "segmenter", ""),
    }
    return Table(
        title="Semantic segmentation",
        paper_table="Table 4",
        evaluated_seeds=scale.alone_seeds,
        label_columns=tuple(Column(id, title) for id, title in LABELS.items()),
        value_columns=tuple(Column(id, title, metric=id) for id, title in COLUMNS.items()),
        rows=tuple(
            Row(
                id,
                dict(zip(LABELS, labels, strict=True)),
                dict.fromkeys(COLUMNS, run),
                note=note,
                compared_with="segmenter",
                evaluations=dict.fromkeys(COLUMNS, setting.evaluations[name]),
            )
            for id, (labels, run, name, note) in rows.items()
        ),
        metric="mean accuracy and mean intersection over union of the classes, %",
        setting=setting.text,
    )
