"""lumix: label-aware image mixing (LUMix, Decoupled Mixup) for any PyTorch training loop.

    mixer = lumix.Switch(lumix.Mixup(0.8), lumix.CutMix(1.0))
    loss_fn = lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1, eta=1.0)
    batch = mixer(images, labels, generator)
    loss = loss_fn(model(batch.images), batch, generator)

Every mixer, rule, law and loss term of `lumix.catalogue` is here by its class's name; AutoMix and SAMix, which train a
mixer, are modules around the network. Names are resolved
on first use, so that `training.config` and the experiment tables can be read without importing torch. Of other
packages this one needs torch alone; `training`, `evaluation` and `lumix.integrations` need more.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lumix.catalogue import PARTS

if TYPE_CHECKING:
    from lumix import functional as functional
    from lumix.automix.learner import AutoMix as AutoMix
    from lumix.automix.learner import SAMix as SAMix
    from lumix.batch import Kind as Kind
    from lumix.batch import MixedBatch as MixedBatch
    from lumix.catalogue import *  # noqa: F403
    from lumix.composition import Either as Either
    from lumix.composition import Switch as Switch
    from lumix.loss import MixLoss as MixLoss
    from lumix.mixers.base import Mixer as Mixer
    from lumix.mixers.hidden import hidden_mixing as hidden_mixing
    from lumix.rules.base import Rule as Rule
    from lumix.terms.base import Term as Term

__version__ = "0.1.0"

_HOME = {
    "AutoMix": "lumix.automix.learner",
    "Either": "lumix.composition",
    "Kind": "lumix.batch",
    "MixLoss": "lumix.loss",
    "MixedBatch": "lumix.batch",
    "Mixer": "lumix.mixers.base",
    "Rule": "lumix.rules.base",
    "SAMix": "lumix.automix.learner",
    "Switch": "lumix.composition",
    "Term": "lumix.terms.base",
    "functional": "lumix.functional",
    "hidden_mixing": "lumix.mixers.hidden",
} | {part.class_name: part.module for part in PARTS.values() if part.kind not in ("network", "task")}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lumix' has no attribute {name!r}")
    module = importlib.import_module(_HOME[name])
    return module if name == "functional" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
