"""lumix: label-aware image mixing (LUMix, Decoupled Mixup) for any PyTorch training loop.

    mixer = lumix.Switch(lumix.Mixup(0.8), lumix.CutMix(1.0))
    loss_fn = lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1, eta=1.0)
    batch = mixer(images, labels, generator)
    loss = loss_fn(model(batch.images), batch, generator)

Every mixer, rule, law and loss term is here by its class's name; AutoMix and SAMix, which train a mixer, are modules
around the network. Of other packages this one needs torch alone; `lumix.integrations` need the libraries they serve.
"""

from lumix import functional as functional
from lumix.automix import AutoMix as AutoMix
from lumix.automix import SAMix as SAMix
from lumix.batch import Kind as Kind
from lumix.batch import MixedBatch as MixedBatch
from lumix.losses import BinaryCrossEntropy as BinaryCrossEntropy
from lumix.losses import CrossEntropy as CrossEntropy
from lumix.losses import Decoupled as Decoupled
from lumix.losses import MixLoss as MixLoss
from lumix.losses import Regulariser as Regulariser
from lumix.losses import RescaledBinaryCrossEntropy as RescaledBinaryCrossEntropy
from lumix.losses import Term as Term
from lumix.mixers.attentive import AttentiveCutMix as AttentiveCutMix
from lumix.mixers.base import Mixer as Mixer
from lumix.mixers.base import NoMix as NoMix
from lumix.mixers.basic import CutMix as CutMix
from lumix.mixers.basic import Mixup as Mixup
from lumix.mixers.fmix import FMix as FMix
from lumix.mixers.manifold import ManifoldMix as ManifoldMix
from lumix.mixers.manifold import hidden_mixing as hidden_mixing
from lumix.mixers.patches import RandomLambda as RandomLambda
from lumix.mixers.patches import RandomShuffle as RandomShuffle
from lumix.mixers.puzzlemix import PuzzleMix as PuzzleMix
from lumix.mixers.resizemix import ResizeMix as ResizeMix
from lumix.mixers.saliencymix import SaliencyMix as SaliencyMix
from lumix.mixers.switch import Either as Either
from lumix.mixers.switch import Switch as Switch
from lumix.rules import AreaRule as AreaRule
from lumix.rules import BetaLaw as BetaLaw
from lumix.rules import ConstantLaw as ConstantLaw
from lumix.rules import LUMixRule as LUMixRule
from lumix.rules import NormalLaw as NormalLaw
from lumix.rules import Rule as Rule
from lumix.rules import TransMixRule as TransMixRule

__version__ = "0.1.0"
__all__ = ["functional", "hidden_mixing", *(name for name, value in globals().items() if isinstance(value, type))]
