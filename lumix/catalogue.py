"""The catalogue: every mixer, step, rule, law, loss term, task and frozen network by name. Imports no torch.

To add a method write its class in a file of its own, and an entry here (or `register` one from another package); a test
holds the entries against the classes' own arguments and defaults.
"""

from typing import TYPE_CHECKING, Any

from lumix.specs import PARTS, Argument, Part, Spec, create, get_part, register  # noqa: F401 - used through this module

if TYPE_CHECKING:  # what `lumix.NAME` is, for type checkers and editors
    from lumix.mixers.attentive import AttentiveCutMix as AttentiveCutMix
    from lumix.mixers.cutmix import CutMix as CutMix
    from lumix.mixers.fmix import FMix as FMix
    from lumix.mixers.manifold import ManifoldMix as ManifoldMix
    from lumix.mixers.mixup import Mixup as Mixup
    from lumix.mixers.puzzle import PuzzleMix as PuzzleMix
    from lumix.mixers.random_lambda import RandomLambda as RandomLambda
    from lumix.mixers.resizemix import ResizeMix as ResizeMix
    from lumix.mixers.saliencymix import SaliencyMix as SaliencyMix
    from lumix.mixers.shuffle import RandomShuffle as RandomShuffle
    from lumix.rules.area import AreaRule as AreaRule
    from lumix.rules.laws import BetaLaw as BetaLaw
    from lumix.rules.laws import ConstantLaw as ConstantLaw
    from lumix.rules.laws import NormalLaw as NormalLaw
    from lumix.rules.lumix import LUMixRule as LUMixRule
    from lumix.rules.transmix import TransMixRule as TransMixRule
    from lumix.terms.binary_cross_entropy import BinaryCrossEntropy as BinaryCrossEntropy
    from lumix.terms.cross_entropy import CrossEntropy as CrossEntropy
    from lumix.terms.decoupled import Decoupled as Decoupled
    from lumix.terms.regulariser import Regulariser as Regulariser
    from lumix.terms.rescaled import RescaledBinaryCrossEntropy as RescaledBinaryCrossEntropy

PLANNED = ("mode", "pairing", "prob", "inplace")  # drawn for each batch, pair or sample, whatever the images
WHOLE = ("pairing", "prob")  # drawn for the whole batch
REQUIRED_SPEC = Argument(Spec, required=True)
SHARES = Argument(tuple, optional=True)


def _add(kind: str, name: str, home: str, title: str, arguments: dict[str, Any] | None = None, **facts: Any) -> None:
    """Register an entry; an argument is written as its default, which tells its type too."""
    known = {a: d if isinstance(d, Argument) else Argument(type(d), d) for a, d in (arguments or {}).items()}
    register(Part(kind, name, home if home.startswith("training.") else f"lumix.{home}", title, known, **facts))


# ------------------------------------------------------------------------------------------------- mixers

_add("mixer", "mixup", "mixers.mixup:Mixup", "Mixup", {"alpha": 0.8}, given=PLANNED, pixels="blend")
_add(
    "mixer",
    "cutmix",
    "mixers.cutmix:CutMix",
    "CutMix",
    {"alpha": 1.0, "minmax": SHARES, "box_rule": "legacy", "correct_lam": True},
    given=PLANNED,
    pixels="cut",
)
_add(
    "mixer",
    "saliencymix",
    "mixers.saliencymix:SaliencyMix",
    "SaliencyMix",
    {"alpha": 1.0, "scope": "batch_first", "saliency_input": "uint8", "box_rule": "legacy"},
    given=(*WHOLE, "mean", "std"),
    pixels="cut",
    dynamic=True,
)
_add(
    "mixer",
    "puzzlemix",
    "mixers.puzzle:PuzzleMix",
    "Puzzle-Mix",
    {
        "alpha": 1.0,
        "num_labels": 3,
        "beta": 1.2,
        "gamma": 0.5,
        "eta": 0.2,
        "neighbours": 4,
        "grids": SHARES,
        "transport": True,
        "transport_eps": 0.8,
        "transport_size": -1,
        "solver": "maxflow",
    },
    given=(*WHOLE, "std"),
    pixels="cut",
    dynamic=True,
    needs="the network",
)
_add(
    "mixer",
    "attentivecutmix",
    "mixers.attentive:AttentiveCutMix",
    "Attentive-CutMix",
    {
        "network": REQUIRED_SPEC,
        "cells": 6,
        "scores": "mean",
        "size": Argument(int, 224, optional=True),
        "ratio_alpha": Argument(float, optional=True),
    },
    given=(*WHOLE, "network"),
    pixels="cut",
    dynamic=True,
    needs="a frozen network",
)
_add(
    "mixer",
    "resizemix",
    "mixers.resizemix:ResizeMix",
    "ResizeMix",
    {"low": 0.1, "high": 0.8, "interpolation": "nearest"},
    given=WHOLE,
    pixels="cut",
)
_add(
    "mixer",
    "fmix",
    "mixers.fmix:FMix",
    "FMix",
    {"alpha": 1.0, "decay": 3.0, "spectrum": "reference", "max_soft": 0.0},
    given=WHOLE,
    pixels="cut",
)
_add(
    "mixer",
    "manifoldmix",
    "mixers.manifold:ManifoldMix",
    "ManifoldMix",
    {"layers": ("", "layer1", "layer2"), "alpha": 2.0},
    given=PLANNED[:3],
    pixels="blend",
    needs="the network",
)
_add(
    "mixer",
    "random_lambda",
    "mixers.random_lambda:RandomLambda",
    "Random lambda",
    {"alpha": 0.8, "patch": 16},
    given=("pairing",),
    pixels="blend",
)

# ------------------------------------------------------------------------------------------------- steps after mixing

_add("step", "shuffle", "mixers.shuffle:RandomShuffle", "Random shuffling", {"patch": 16}, given=("mixer",))

# ------------------------------------------------------------------------------------------------- label rules

_add("law", "beta", "rules.laws:BetaLaw", "Beta(alpha, alpha)", {"alpha": 2.0})
_add("law", "normal", "rules.laws:NormalLaw", "N(0, scale)", {"scale": 1.0, "reading": "raw"})
_add("law", "constant", "rules.laws:ConstantLaw", "a constant", {"value": 0.5})
_add("rule", "area", "rules.area:AreaRule", "area")
_add("rule", "transmix", "rules.transmix:TransMixRule", "TransMix", {"share": 0.5})
_add(
    "rule",
    "lumix",
    "rules.lumix:LUMixRule",
    "LUMix",
    {
        "r_r": 0.4,
        "r_s": 0.1,
        "law": Spec("beta"),
        "detach": True,
        "apply_to": "cut",
        "scores": "softmax",
        "r_a": 0.0,
        "clamp": True,
    },
)

# ------------------------------------------------------------------------------------------------- loss terms

_add("term", "cross_entropy", "terms.cross_entropy:CrossEntropy", "mixed cross entropy", {"smoothing": 0.0})
_add(
    "term",
    "binary_cross_entropy",
    "terms.binary_cross_entropy:BinaryCrossEntropy",
    "binary cross entropy",
    {"smoothing": 0.0, "target": "twohot", "threshold": 0.2, "reduction": "mean"},
)
_add(
    "term",
    "regulariser",
    "terms.regulariser:Regulariser",
    "regulariser R",
    {"eta": 1.0, "smoothing": 0.0, "reading": "or", "scores": "softmax"},
)
_add(
    "term",
    "decoupled",
    "terms.decoupled:Decoupled",
    "decoupled term of DM(CE)",
    {"eta": 1.0, "exponent": 0.0, "terms": "both"},
)
_add(
    "term",
    "rescaled_binary_cross_entropy",
    "terms.rescaled:RescaledBinaryCrossEntropy",
    "DM(BCE)",
    {"cut_t": 1.0, "cut_xi": 0.8, "blend_t": 0.5, "blend_xi": 1.0, "reduction": "class_sum"},
)

# ------------------------------------------------------------------------------------------------- tasks

_add(
    "task",
    "mix",
    "training.build:build_mix_task",
    "one network on mixed images",
    given=("run", "network", "mean", "std", "device", "pretrained"),
)
LEARNS = {
    "alpha": 2.0,
    "stage": Argument(int, optional=True),
    "large": False,
    "momentum": 0.999999,
    "mask_decays": False,
    "share": 1.0,
    "block_lr": Argument(float, optional=True),
    "block_min_lr": Argument(float, optional=True),
}
OWN = {"given": ("run", "network", "device", "seed", "updates"), "needs": "networks of its own", "dynamic": True}
_add("task", "automix", "training.automix_task:AutoMixTask", "AutoMix", LEARNS, pixels="cut", **OWN)
_add("task", "samix", "training.automix_task:SAMixTask", "SAMix", LEARNS, pixels="cut", **OWN)
_add(
    "task",
    "self_tuning",
    "training.self_tuning_task:SelfTuningTask",
    "Self-Tuning",
    {"places": 32, "features": 1024, "temperature": 0.07, "momentum": 0.999, "head_lr_factor": 10.0},
    given=("run", "network", "mean", "std", "device", "pretrained", "seed", "updates"),
    needs="networks of its own",
    labelled=("weak", "weak"),
    unlabelled=("weak", "weak"),
)

SEMI: dict[str, Any] = {"given": ("run", "mixing", "updates"), "labelled": ("weak",)}
TRUST = {"threshold": 0.95, "ratio": 7, "weight": 1.0, "ramp": 0.0}
GUESS = {"temperature": 0.5, "alpha": 0.5, "weight": 100.0, "ramp": 0.4}
_add(
    "task",
    "pseudo_label",
    "training.fixmatch_task:PseudoLabelTask",
    "Pseudo-Label",
    TRUST | {"ratio": 1, "ramp": 0.4},
    unlabelled=("weak",),
    **SEMI,
)
_add(
    "task", "fixmatch", "training.fixmatch_task:FixMatchTask", "FixMatch", TRUST, unlabelled=("weak", "strong"), **SEMI
)
_add("task", "mixmatch", "training.mixmatch_task:MixMatchTask", "MixMatch", GUESS, unlabelled=("weak", "weak"), **SEMI)

# ------------------------------------------------------------------------------------------------- frozen networks

LOOKS = ("data", "mean", "std", "pretrained")  # what a frozen network is built for
_add("network", "embedded", "training.frozen:embedded", "a tiny ResNet trained on the run's own images", given=LOOKS)
_add(
    "network",
    "pretrained",
    "training.frozen:pretrained",
    "a network of timm with published weights",
    {"model": Argument(str, required=True)},
    given=LOOKS,
)
