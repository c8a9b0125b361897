"""lumix: label-aware image mixing (LUMix, Decoupled Mixup) for any PyTorch training loop.

    mixer = lumix.Switch(lumix.Mixup(0.8), lumix.CutMix(1.0))
    loss_fn = lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1, eta=1.0)
    batch = mixer(images, labels, generator)
    loss = loss_fn(model(batch.images), batch, generator)

Names are resolved on first use, so that `lumix.train.config` and the experiment tables can be read without importing
torch. Of other packages this one needs torch alone; `lumix.train`, `lumix.evaluate` and `lumix.integrations` need more.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumix import functional
    from lumix.batch import Kind, MixedBatch
    from lumix.composition import Either, Switch
    from lumix.loss import MixLoss
    from lumix.mixers import (
        AttentiveCutMix,
        CutMix,
        FMix,
        ManifoldMix,
        Mixer,
        Mixup,
        PuzzleMix,
        RandomLambda,
        RandomShuffle,
        ResizeMix,
        SaliencyMix,
        hidden_mixing,
    )
    from lumix.rules import AreaRule, BetaLaw, ConstantLaw, LUMixRule, NormalLaw, Rule, TransMixRule

__version__ = "0.1.0"

_HOME = {
    "functional": "lumix.functional",
    "Kind": "lumix.batch",
    "MixedBatch": "lumix.batch",
    "MixLoss": "lumix.loss",
    "AttentiveCutMix": "lumix.mixers",
    "CutMix": "lumix.mixers",
    "Either": "lumix.composition",
    "FMix": "lumix.mixers",
    "ManifoldMix": "lumix.mixers",
    "Mixer": "lumix.mixers",
    "Mixup": "lumix.mixers",
    "PuzzleMix": "lumix.mixers",
    "RandomLambda": "lumix.mixers",
    "RandomShuffle": "lumix.mixers",
    "ResizeMix": "lumix.mixers",
    "SaliencyMix": "lumix.mixers",
    "Switch": "lumix.composition",
    "hidden_mixing": "lumix.mixers",
    "AreaRule": "lumix.rules",
    "BetaLaw": "lumix.rules",
    "ConstantLaw": "lumix.rules",
    "LUMixRule": "lumix.rules",
    "NormalLaw": "lumix.rules",
    "Rule": "lumix.rules",
    "TransMixRule": "lumix.rules",
}

__all__ = [
    "AreaRule",
    "AttentiveCutMix",
    "BetaLaw",
    "ConstantLaw",
    "CutMix",
    "Either",
    "FMix",
    "Kind",
    "LUMixRule",
    "ManifoldMix",
    "MixLoss",
    "MixedBatch",
    "Mixer",
    "Mixup",
    "NormalLaw",
    "PuzzleMix",
    "RandomLambda",
    "RandomShuffle",
    "ResizeMix",
    "Rule",
    "SaliencyMix",
    "Switch",
    "TransMixRule",
    "functional",
    "hidden_mixing",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lumix' has no attribute {name!r}")
    module = importlib.import_module(_HOME[name])
    return module if name == "functional" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
