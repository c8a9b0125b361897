"""LUMix Table 4: semantic segmentation from weights pre-trained with and without LUMix, beside DeepLabV3+."""

from pathlib import Path

from evaluation.evaluation import Evaluation
from experiments.claims import Claim, Greater, WithinPaper
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
        id="lumix_table04_segmentation",
        title="Semantic segmentation",
        paper_table="Table 4",
        evaluated_seeds=scale.alone_seeds,
        folder=Path(__file__).parent,
        label_columns=LABELS,
        value_columns=COLUMNS,
        rows=tuple(_row(id, *row) for id, row in rows.items()),
        claims=CLAIMS,
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


def _better(metric: str) -> Greater:
    return Greater((("segmenter_lumix", metric),), (("segmenter", metric),))


def _size(metric: str, text: str) -> Claim:
    return Claim(
        f"segmentation-{metric}-size",
        text,
        "section 4.3, Table 4",
        ("I-25",),
        WithinPaper(("segmenter_lumix", metric), 0.4, to=("segmenter", metric)),
    )


CLAIMS = (
    Claim(
        "segmentation-macc",
        "LUMix pre-training raises Segmenter's mAcc (the text says +0.6; Table 4's own cells give +0.5)",
        "section 4.3, Table 4",
        ("I-25",),
        _better("macc"),
    ),
    Claim(
        "segmentation-miou",
        "LUMix pre-training raises Segmenter's mIoU (the text says +0.9; Table 4's own cells give +0.6)",
        "section 4.3, Table 4",
        ("I-25",),
        _better("miou"),
    ),
    Claim(
        "segmentation-miou_ms",
        "LUMix pre-training raises Segmenter's mIoU with several scales (+0.2 by Table 4's cells)",
        "Table 4",
        (),
        _better("miou_ms"),
    ),
    Claim(
        "segmentation-deeplab",
        "Segmenter on DeiT-S has a higher mIoU than DeepLabV3+ on ResNet-101 (49.7 against 47.3)",
        "Table 4",
        (),
        Greater((("segmenter", "miou"),), (("deeplab", "miou"),)),
    ),
    _size("macc", "mAcc grows by 0.5, within 0.4 (Table 4; the text says 0.6)"),
    _size("miou", "mIoU grows by 0.6, within 0.4 (Table 4; the text says 0.9)"),
    Claim(
        "segmentation-baseline",
        "Without LUMix Segmenter reaches an mIoU of 49.7 on Pascal Context, within 0.8 (the introduction names VOC)",
        "introduction, section 4.3, Table 4",
        ("I-35",),
        WithinPaper(("segmenter", "miou"), 0.8),
    ),
)
