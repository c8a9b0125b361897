"""LUMix Table 6: mixing methods on DeiT-S and ResNet-50, by top-1 accuracy, training speed, memory and generality."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.evaluation import Evaluation
from experiments import methods
from experiments.claims import Claim, Close, EachGreater, Greater, WithinPaper
from experiments.scale import Scale
from experiments.table import TOP1, Column, Row, Table
from lumix import FMix, ResizeMix, SaliencyMix
from training.config import Run

BACKBONES = (("deit_s", "DeiT-S"), ("resnet50", "ResNet-50"))
NO_CLASS_TOKEN = "reads the attention of a class token, which ResNet-50 does not have"
NO_STAGES = "not defined for ViTs in the published comparisons: mixed after the first two stages of a ResNet"


def _on(rival: Callable[[Run], Run]) -> Callable[[Run], Run]:
    return lambda run: methods.lumix(rival(run))


RESIZEMIX = partial(methods.in_place_of_cutmix, rival=ResizeMix())
SALIENCYMIX = partial(methods.in_place_of_cutmix, rival=SaliencyMix())
FMIX = partial(methods.in_place_of_cutmix, rival=FMix())


def _manifoldmix(run: Run) -> Run:
    """With alpha of its authors' CIFAR runs."""
    return methods.in_place_of_cutmix(run, methods.manifold(run))


# id, name, method, model-agnostic, ours, note
METHODS: tuple[tuple[str, str, Callable[[Run], Run], str, bool, str], ...] = (
    ("baseline", "Baseline", methods.without_cutmix, "-", False, "Mixup alone"),
    ("cutmix", "CutMix", methods.same, "yes", False, ""),
    ("saliencymix", "SaliencyMix", SALIENCYMIX, "yes", False, ""),
    ("puzzlemix", "Puzzle-Mix", methods.puzzle_mix, "yes", False, "exact minimum cut, with transport"),
    ("attentivecutmix", "Attentive-CutMix", methods.attentive_cutmix, "yes", True, "named in the text only (I-27)"),
    ("transmix", "TransMix", methods.transmix, "no", False, ""),
    ("lumix", "LUMix", methods.lumix, "yes", False, ""),
    ("resizemix", "ResizeMix", RESIZEMIX, "yes", True, ""),
    ("fmix", "FMix", FMIX, "yes", True, ""),
    ("manifoldmix", "ManifoldMix", _manifoldmix, "stages", True, "after the input or one of the first stages"),
    ("lumix_saliencymix", "LUMix on SaliencyMix", _on(SALIENCYMIX), "yes", True, ""),
    ("lumix_puzzlemix", "LUMix on Puzzle-Mix", _on(methods.puzzle_mix), "yes", True, ""),
    ("lumix_resizemix", "LUMix on ResizeMix", _on(RESIZEMIX), "yes", True, ""),
    ("lumix_attention", "LUMix with attention", methods.lumix_and_attention, "no", True, "a quarter of λ by attention"),
)
LACKING = {
    ("resnet50", "transmix"): NO_CLASS_TOKEN,
    ("resnet50", "lumix_attention"): NO_CLASS_TOKEN,
    ("deit_s", "manifoldmix"): NO_STAGES,
}
# Images per second on a V100 as the paper prints them; only their ratio to the baseline is compared with ours.
PAPER_SPEED = {
    "deit_s": {"baseline": 322, "cutmix": 322, "saliencymix": 314, "puzzlemix": 139, "transmix": 322, "lumix": 322},
    "resnet50": {"baseline": 464, "cutmix": 464, "saliencymix": 433, "puzzlemix": 176, "lumix": 464},
}


def throughput(scale: Scale, run: Run, precision: str) -> Evaluation:
    """Speed and memory of `run` beside the baseline of its backbone, under the protocol of docs/performance.md.

    The method is timed on every batch, as the paper's speeds imply; the baseline goes on blending.
    """
    baseline = methods.without_cutmix(scale.base("deit", run.model.role))
    if scale.gpus:
        counts: dict[str, Any] = {"batch": 128, "warmup": 50, "rounds": 5, "steps": 200}
    else:
        counts = {"batch": 50, "warmup": 4, "rounds": 9, "steps": 4}
    return Evaluation(
        "throughput",
        {"baseline": {"key": baseline.key, "seed": 0}, "every_batch": True, **counts, "precision": precision},
    )


def _row(
    scale: Scale, role: str, backbone: str, id: str, entry: tuple[str, Callable[[Run], Run], str, bool, str]
) -> Row:
    name, method, agnostic, ours, note = entry
    speed = PAPER_SPEED[role].get(id)
    labels = {
        "method": name,
        "backbone": backbone,
        "fps": str(speed) if speed else "",
        "agnostic": agnostic,
    }
    lacking = LACKING.get((role, id), "") or scale.setting("deit").unavailable.get(role, "")
    row_id, baseline = f"{role}_{id}", f"{role}_baseline"
    if lacking:
        return Row(row_id, labels, {}, ours, "", lacking, baseline)
    run = method(scale.base("deit", role))
    columns = _columns(scale)
    evaluations = {
        column.id: throughput(scale, run, "bfloat16" if column.id == "speed_amp" else "float32")
        for column in columns
        if column.id != TOP1.id
    }
    runs = {column.id: run for column in columns}
    return Row(row_id, labels, runs, ours, note, compared_with=baseline, evaluations=evaluations)


def _columns(scale: Scale) -> tuple[Column, ...]:
    amp = (Column("speed_amp", "Speed in bfloat16, % of the baseline's", metric="speed", compared=False),)
    return (
        TOP1,
        Column("speed", "Speed, % of the baseline's", metric="speed", compared=False),
        *(amp if scale.gpus else ()),
        Column("memory", "Peak memory, % of the baseline's", metric="memory", lower_is_better=True, compared=False),
        Column("parameters", "Parameters, thousands", metric="parameters", compared=False),
    )


def build(scale: Scale) -> Table:
    learns = scale.setting("deit").learning
    automix = ("automix", "AutoMix", lambda run: learns(run, "automix"), "features", True, "learns its masks")
    return Table(
        id="lumix_table06_rivals",
        title="Mixing methods compared",
        paper_table="Table 6",
        evaluated_seeds=scale.alone_seeds,
        folder=Path(__file__).parent,
        label_columns=(
            Column("method", "Method"),
            Column("backbone", "Backbone"),
            Column("fps", "images/s on a V100 (paper)"),
            Column("agnostic", "Model-agnostic"),
        ),
        value_columns=_columns(scale),
        rows=tuple(
            _row(scale, role, backbone, id, tuple(entry))  # type: ignore[arg-type]
            for role, backbone in BACKBONES
            for id, *entry in (*METHODS, automix)
        ),
        claims=_claims(),
        metric="top-1 accuracy, %; speed and memory in % of the baseline's, measured side by side",
    )


def _top1(role: str, method: str) -> tuple[str, str]:
    return f"{role}_{method}", TOP1.id


def _claims() -> tuple[Claim, ...]:
    return (*_deit_claims(), _resnet_claim(), *_speed_claims())


DEIT, RESNET = partial(_top1, "deit_s"), partial(_top1, "resnet50")


def _deit_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            "rivals-deit_s-puzzlemix",
            "On DeiT-S LUMix beats Puzzle-Mix (the text says by 0.7; Table 6's cells give 0.8)",
            "section 4.2, Table 6",
            ("I-26",),
            Greater((DEIT("lumix"),), (DEIT("puzzlemix"),)),
        ),
        Claim(
            "rivals-deit_s-saliencymix",
            "On DeiT-S LUMix beats SaliencyMix (the text says by 1.3; Table 6's cells give 1.4)",
            "section 4.2, Table 6",
            ("I-26",),
            Greater((DEIT("lumix"),), (DEIT("saliencymix"),)),
        ),
        Claim(
            "rivals-transmix",
            "TransMix, which needs a class token, stays ahead of LUMix on DeiT-S (80.7 against 80.6)",
            "Table 6",
            (),
            Greater((DEIT("transmix"),), (DEIT("lumix"),)),
        ),
        Claim(
            "rivals-deit_s-baseline",
            "On DeiT-S LUMix gains 2.0 points over training without CutMix, within 0.4",
            "Table 6",
            (),
            WithinPaper(DEIT("lumix"), 0.4, to=DEIT("baseline")),
        ),
        Claim(
            "rivals-attentivecutmix",
            "LUMix beats Attentive-CutMix on both backbones (named in the text; Table 6 has no such row)",
            "section 4.2",
            ("I-27",),
            EachGreater(tuple((at("lumix"), at("attentivecutmix")) for at in (DEIT, RESNET))),
        ),
    )


def _resnet_claim() -> Claim:
    rivals = ("baseline", "cutmix", "saliencymix", "puzzlemix")
    return Claim(
        "rivals-resnet50",
        "On ResNet-50 LUMix beats every other method (79.1 against at most 78.8; those numbers coincide with the "
        "methods' own published results)",
        "Table 6",
        ("I-34",),
        EachGreater(tuple((RESNET("lumix"), RESNET(rival)) for rival in rivals)),
    )


def _speed_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            "rivals-speed-lumix",
            "LUMix costs no speed, to 2 percent of the baseline's (322 of 322 and 464 of 464 images per second)",
            "abstract, Table 6",
            (),
            Close(
                tuple((f"{role}_{method}", "speed") for role, _ in BACKBONES for method in ("lumix", "baseline")), 2.0
            ),
        ),
        Claim(
            "rivals-speed-puzzlemix",
            "Puzzle-Mix is slower than LUMix (139 against 322 and 176 against 464 images per second)",
            "Table 6",
            (),
            EachGreater(tuple(((f"{role}_lumix", "speed"), (f"{role}_puzzlemix", "speed")) for role, _ in BACKBONES)),
        ),
        Claim(
            "rivals-speed-saliencymix",
            "SaliencyMix is slower than LUMix (314 against 322 and 433 against 464 images per second)",
            "Table 6",
            (),
            EachGreater(tuple(((f"{role}_lumix", "speed"), (f"{role}_saliencymix", "speed")) for role, _ in BACKBONES)),
        ),
    )
