"""LUMix Table 9: top-1 accuracy of DeiT-S on images whose least, most attended or random patches are dropped."""

from pathlib import Path

from evaluation.arguments import LOSSES
from experiments.claims import Claim, EachGreater, Greater, WithinPaper
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
        id="lumix_table09_occlusion",
        title="Robustness to dropped patches, DeiT-S",
        paper_table="Table 9",
        folder=Path(__file__).parent,
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
        claims=CLAIMS,
        metric="top-1 accuracy on images with dropped patches, %",
    )


def _pair(variant: str, level: object) -> tuple[tuple[str, str], tuple[str, str]]:
    return (f"{variant}_{level}", "lumix"), (f"{variant}_{level}", "base")


CLAIMS = (
    Claim(
        "occlusion-average",
        "On average over the losses LUMix is the more robust to dropped background (printed 52.92 against 49.75; the "
        "cells give 52.93 and 49.74)",
        "section 4.4, Table 9",
        ("I-30",),
        Greater((("non_salient_average", "lumix"),), (("non_salient_average", "base"),)),
    ),
    Claim(
        "occlusion-every",
        "LUMix is ahead at every loss, 0 to 90 %, of the least attended patches",
        "Table 9",
        (),
        EachGreater(tuple(_pair("non_salient", loss) for loss in LOSSES)),
    ),
    Claim(
        "occlusion-modes",
        "LUMix is the more robust in the other two modes too, random and salient (Table 9 is said to show all three, "
        "and shows the non-salient one)",
        "section 4.4",
        ("I-31",),
        EachGreater(tuple(_pair(variant, "average") for variant in ("random", "salient"))),
    ),
    Claim(
        "occlusion-average-size",
        "LUMix gains 3.2 points on average, within 1.0 (printed averages 49.75 and 52.92, recomputed 49.74 and 52.93)",
        "Table 9",
        ("I-30",),
        WithinPaper(("non_salient_average", "lumix"), 1.0, to=("non_salient_average", "base")),
    ),
    Claim(
        "occlusion-baseline",
        "DeiT-S reaches 79.8 on whole images, within 0.4 (Table 7 prints 79.9 for the same)",
        "Tables 7 and 9",
        ("I-22",),
        WithinPaper(("non_salient_0", "base"), 0.4),
    ),
)
