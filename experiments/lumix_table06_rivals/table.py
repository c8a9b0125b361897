"""LUMix Table 6: mixing methods on DeiT-S and ResNet-50, by top-1 accuracy, training speed, memory and generality."""

from functools import partial

from evaluation.evaluation import Evaluation
from experiments import methods
from experiments.decoupled import STATIC_ETA, decoupled
from experiments.scale import Scale
from experiments.table import TOP1, Column, Method, Row, Table
from lumix import FMix, ResizeMix, SaliencyMix
from training.config import Run

BACKBONES = (("deit_s", "DeiT-S"), ("resnet50", "ResNet-50"))
NO_CLASS_TOKEN = "reads the attention of a class token, which ResNet-50 does not have"
NO_STAGES = "not defined for ViTs in the published comparisons: mixed after the first two stages of a ResNet"
RESIZEMIX, SALIENCYMIX, FMIX = (
    partial(methods.in_place_of_cutmix, rival=rival) for rival in (ResizeMix(), SaliencyMix(), FMix())
)
DM_CE = partial(decoupled, eta=STATIC_ETA)


def _manifoldmix(run: Run) -> Run:
    """With alpha of its authors' CIFAR runs."""
    return methods.in_place_of_cutmix(run, methods.manifold(run))


def _on(rival: Method) -> Method:
    return lambda run: methods.lumix(rival(run))


# id, name, method, model-agnostic, ours, note
METHODS: tuple[tuple[str, str, Method, str, bool, str], ...] = (
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
    ("decoupled", "DM(CE)", DM_CE, "yes", True, "on CutMix and Mixup, the other paper's"),
    ("lumix_attention", "LUMix with attention", methods.lumix_and_attention, "no", True, "a quarter of λ by attention"),
)
LACKING = {
    ("resnet50", "transmix"): NO_CLASS_TOKEN,
    ("resnet50", "lumix_attention"): NO_CLASS_TOKEN,
    ("deit_s", "manifoldmix"): NO_STAGES,
    ("resnet50", "decoupled"): "its cost is asked on DeiT-S",
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
    baseline = {"key": methods.without_cutmix(scale.base("deit", run.model.role)).key, "seed": 0}
    batch, warmup, rounds, steps = (128, 50, 5, 200) if scale.gpus else (50, 4, 9, 4)
    counts = {"batch": batch, "warmup": warmup, "rounds": rounds, "steps": steps}
    return Evaluation("throughput", {"baseline": baseline, "every_batch": True, **counts, "precision": precision})


def _row(scale: Scale, role: str, backbone: str, entry: tuple[str, str, Method, str, bool, str]) -> Row:
    id, name, method, agnostic, ours, note = entry
    labels = {"method": name, "backbone": backbone, "fps": str(PAPER_SPEED[role].get(id, "")), "agnostic": agnostic}
    row_id, baseline = f"{role}_{id}", f"{role}_baseline"
    if lacking := LACKING.get((role, id), "") or scale.setting("deit").unavailable.get(role, ""):
        return Row(row_id, labels, {}, ours, "", lacking, baseline)
    run, columns = method(scale.base("deit", role)), [column.id for column in _columns(scale)]
    precision = {"speed_amp": "bfloat16"}
    evaluations = {id: throughput(scale, run, precision.get(id, "float32")) for id in columns if id != TOP1.id}
    return Row(row_id, labels, dict.fromkeys(columns, run), ours, note, "", baseline, evaluations)


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
        title="Mixing methods compared",
        paper_table="Table 6",
        evaluated_seeds=1,  # the rounds of one measurement tell its spread
        label_columns=(
            Column("method", "Method"),
            Column("backbone", "Backbone"),
            Column("fps", "images/s on a V100 (paper)"),
            Column("agnostic", "Model-agnostic"),
        ),
        value_columns=_columns(scale),
        rows=tuple(_row(scale, role, backbone, entry) for role, backbone in BACKBONES for entry in (*METHODS, automix)),
        metric="top-1 accuracy, %; speed and memory in % of the baseline's, measured side by side",
    )
