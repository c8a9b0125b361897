"""LUMix Table 5: how well the class attention of DeiT-S, with and without LUMix, covers and frames the object."""

from pathlib import Path

from evaluation.evaluation import Evaluation
from experiments.claims import Claim, Greater
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
        id="lumix_table05_localisation",
        title="Weakly supervised segmentation and localisation by attention, DeiT-S",
        paper_table="Table 5",
        folder=Path(__file__).parent,
        label_columns=(Column("model", "Model"),),
        value_columns=columns,
        rows=tuple(
            Row(
                id,
                {"model": names[id]},
                dict.fromkeys(shown, run),
                unavailable=no_masks,
                compared_with="deit_s",
            )
            for id, run in runs.items()
        ),
        claims=CLAIMS,
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


def _better(metric: str) -> Greater:
    return Greater((("lumix", metric),), (("deit_s", metric),))


CLAIMS = (
    Claim(
        "weak-segmentation",
        "LUMix's attention covers objects better (Jaccard index 29.2 to 29.5)",
        "Table 5 and section 4.3",
        (),
        _better("segmentation"),
    ),
    Claim(
        "weak-localisation",
        "Boxes drawn from LUMix's attention fit objects better (mean IoU 34.9 to 41.8)",
        "Table 5 and section 4.3",
        (),
        _better("localisation"),
    ),
    Claim(
        "weak-localisation-mean-head",
        "The same without choosing the head by the truth: attention averaged over heads",
        "Table 5, ours",
        (),
        _better("localisation_mean_head"),
    ),
)
