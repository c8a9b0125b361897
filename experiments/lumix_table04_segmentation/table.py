"""LUMix Table 4: semantic segmentation from weights pre-trained with and without LUMix, beside DeepLabV3+."""

from dataclasses import dataclass
from pathlib import Path

from experiments.claims import Claim, Greater, WithinPaper
from experiments.methods import lumix
from experiments.scale import Scale
from experiments.scales import lab, mini
from experiments.table import Column, Row, Table
from lumix.evaluate.evaluation import Evaluation
from lumix.evaluate.segmentation.recipe import Recipe
from lumix.train.config import Model, Run


@dataclass(frozen=True)
class Setting:
    """What Table 4 is at one scale: the pre-training runs of both encoders, and how each is fine-tuned and tested."""

    vit: Run
    resnet: Run
    segmenter: Recipe
    deeplab: Recipe
    text: str
    deeplab_note: str


def _mini() -> Setting:
    # Learning rates and sizes were chosen on seed 0 of the runs without LUMix, for what 8 CPU-seconds can give.
    common = Recipe("shapes", batch_size=8, scale_low=1.0, scale_high=1.4, photometric=False, test_size=100)
    segmenter = common.replace(
        base=24, crop=24, stride=16, iterations=320, lr=5e-3, min_lr=5e-5, drop_path=0.0, dropout=0.0
    )
    deeplab = common.replace(
        decoder="deeplabv3plus",
        base=32,
        crop=32,
        stride=21,
        iterations=200,
        lr=0.2,
        min_lr=5e-3,
        weight_decay=1e-4,
        width=32,
        dilation=1,
    )
    return Setting(
        mini.shapes_run("deit_s"),
        mini.shapes_run("resnet50"),
        segmenter,
        deeplab,
        "Ten shapes and background in procedural scenes of 16x16 pixels, a tiny DeiT-S (4-pixel patches, images "
        "enlarged to 24) and a tiny ResNet (images enlarged to 32), both pre-trained and fine-tuned on these scenes "
        "on one CPU thread, tested on 100 of them. This exercises the mechanics and says nothing about Pascal Context.",
        "stand-in: the library's DeepLabV3+, 32 channels wide, dilations 1, 2, 3, on the tiny ResNet of this scale",
    )


def _lab(scale: Scale) -> Setting:
    segmenter = Recipe(
        "camvid",
        base=240,
        crop=96,
        stride=64,
        iterations=4000,
        lr=1e-2,
        min_lr=1e-4,
        precision="bfloat16",
    )
    deeplab = segmenter.replace(decoder="deeplabv3plus", min_lr=1e-3, weight_decay=1e-4, width=256)
    # At 32 pixels a ResNet with the ordinary stem, which DeepLabV3+ needs, would end in a single pixel.
    resnet = lab.run("resnet50").replace(
        data=lab.CIFAR100.replace(image_size=64, crop_padding=8), model=Model("resnet50", "resnet18")
    )
    return Setting(
        scale.run("deit_s"),
        resnet,
        segmenter,
        deeplab,
        "CamVid street scenes at 240x180, 11 classes, 367 training and 233 test images; a small DeiT-S (patches of "
        "4 pixels) and a ResNet-18 pre-trained on CIFAR-100, 4000 updates of crops of 96 pixels, one "
        "GPU. Not Pascal Context.",
        "stand-in: the library's DeepLabV3+, 256 channels wide, on a ResNet-18",
    )


def _setting(scale: Scale) -> Setting:
    if scale.name == "mini":
        return _mini()
    if scale.name == "lab":
        return _lab(scale)
    segmenter = Recipe("pascal_context", precision="bfloat16")
    return Setting(
        scale.run("deit_s"),
        scale.run("resnet101"),
        segmenter,
        segmenter.replace(decoder="deeplabv3plus", iterations=40_000, lr=4e-3, min_lr=1e-4, weight_decay=1e-4),
        "Pascal Context, 59 classes and background, at 480 pixels: DeiT-S of the paper's recipe with Segmenter's mask "
        "transformer (80 000 updates of 16 crops), ResNet-101 with DeepLabV3+ (40 000 updates), each on one GPU.",
        "the library's DeepLabV3+ on a ResNet-101 of our own pre-training",
    )


def build(scale: Scale) -> Table:
    setting = _setting(scale)
    deeplab = ("ResNet101", "Deeplabv3+", ""), setting.resnet, setting.deeplab, setting.deeplab_note
    base = ("DeiT-S", "Segmenter", ""), setting.vit, setting.segmenter, ""
    perturbed = ("DeiT-S", "Segmenter", "yes"), lumix(setting.vit), setting.segmenter, ""
    rows = {"deeplab": deeplab, "segmenter": base, "segmenter_lumix": perturbed}
    return Table(
        id="lumix_table04_segmentation",
        title="Semantic segmentation",
        paper_table="Table 4",
        folder=Path(__file__).parent,
        label_columns=LABELS,
        value_columns=COLUMNS,
        rows=tuple(_row(id, *row) for id, row in rows.items()),
        claims=CLAIMS,
        metric="mean accuracy and mean intersection over union of the classes, %",
        setting=setting.text,
    )


def _row(id: str, labels: tuple[str, str, str], run: Run, recipe: Recipe, note: str) -> Row:
    evaluation = Evaluation("segmentation", {"recipe": recipe.to_dict()})
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
