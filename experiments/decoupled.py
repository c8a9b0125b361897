"""The methods and losses of Decoupled Mixup (DM) as functions from a plain base run to a run (its appendix B)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from experiments.methods import puzzle
from experiments.scale import Scale
from experiments.table import Column, Method, Row
from lumix.catalogue import Spec
from lumix.train.config import Mix, Run

# Beta's alpha beside the mixed cross entropy, as the toolbox that the paper follows has it, by setting; beside DM's
# losses it is 0.2 for static and 2 for dynamic methods (D-10).
ALPHA = {
    "cifar100": {"mixup": 1.0, "cutmix": 0.2, "saliencymix": 0.2, "puzzlemix": 1.0},
    "pytorch": {"mixup": 0.2, "cutmix": 1.0, "saliencymix": 1.0, "puzzlemix": 1.0},
    "rsb_a3": {"mixup": 0.2, "cutmix": 0.2, "saliencymix": 0.2, "puzzlemix": 1.0},
}
STATIC_ALPHA, DYNAMIC_ALPHA = 0.2, 2.0
STATIC_ETA, DYNAMIC_ETA = 0.1, 1.0  # on CIFAR-100 and ImageNet
DYNAMIC = ("puzzlemix",)  # SaliencyMix counts as static (D-9)
TITLES = {"mixup": "Mixup", "cutmix": "CutMix", "saliencymix": "SaliencyMix", "puzzlemix": "PuzzleMix"}
NOT_YET = {"automix": "AutoMix", "samix": "SAMix"}
WHY_NOT_YET = "not yet: mixers that learn are to come"


def mixed(run: Run, name: str, alpha: float) -> Run:
    """The run with every batch mixed by one mixer, partners by a random permutation."""
    mixer = puzzle(run, alpha) if name == "puzzlemix" else Spec(name, alpha=alpha)
    return run.replace(mix=Mix(choices=((mixer, 1.0),), pairing="permutation"))


def limited(run: Run, share: float) -> Run:
    """The run on a share of all training images."""
    return run.replace(data=run.data.replace(share=share, train_size=0))


def decoupled(run: Run, eta: float) -> Run:
    """The run under DM(CE): its terms and eta times the decoupled term."""
    return run.replace(loss=run.loss.replace(terms=(*run.loss.terms, Spec("decoupled", eta=eta))))


def rescaled(run: Run, **changes: float) -> Run:
    """The run under sigmoid cross entropy with the rescaled targets of DM(BCE)."""
    return run.replace(loss=run.loss.replace(terms=(Spec("rescaled_binary_cross_entropy", **changes),)))


ONE = {"cut_t": 1.0, "cut_xi": 1.0, "blend_t": 1.0, "blend_xi": 1.0}  # the mixed target itself
TWO = {"cut_t": 1.0, "cut_xi": 0.0, "blend_t": 1.0, "blend_xi": 0.0}  # 1 for both classes


@dataclass(frozen=True)
class LossColumn:
    """A column of DM's tables: a loss, and whether it goes with DM's own alpha."""

    id: str
    title: str
    apply: Callable[[Run, float], Run]  # run, eta of its method
    own_alpha: bool


MCE = LossColumn("mce", "MCE", lambda run, _: run, own_alpha=False)
DM_CE = LossColumn("dm_ce", "DM(CE)", decoupled, own_alpha=True)
DM_ALPHA = LossColumn("mce_dm_alpha", "MCE with DM's alpha", lambda run, _: run, own_alpha=True)
MBCE_ONE = LossColumn("mbce_one", "MBCE (one)", lambda run, _: rescaled(run, **ONE), own_alpha=False)
MBCE_TWO = LossColumn("mbce_two", "MBCE (two)", lambda run, _: rescaled(run, **TWO), own_alpha=False)
DM_BCE = LossColumn("dm_bce", "DM(BCE)", lambda run, _: rescaled(run), own_alpha=True)


def method(name: str, setting: str, role: str, loss: LossColumn) -> Method:
    """The mixer of that name under a loss, with alpha and eta as the paper sets them for `role` in `setting`."""
    dynamic = name in DYNAMIC
    own_alpha = DYNAMIC_ALPHA if dynamic else STATIC_ALPHA
    alpha = own_alpha if loss.own_alpha else ALPHA[setting][name]
    if (setting, role) == ("pytorch", "resnet18") and not dynamic:
        alpha = STATIC_ALPHA  # the toolbox's exception for the smallest net
    return partial(_under, name=name, alpha=alpha, loss=loss, eta=DYNAMIC_ETA if dynamic else STATIC_ETA)


def _under(run: Run, name: str, alpha: float, loss: LossColumn, eta: float) -> Run:
    return loss.apply(mixed(run, name, alpha), eta)


def columns(losses: Iterable[LossColumn]) -> tuple[Column, ...]:
    """The value columns of a table of these losses."""
    return tuple(Column(loss.id, loss.title) for loss in losses)


def row(
    scale: Scale,
    name: str,
    setting: str,
    role: str,
    losses: Iterable[LossColumn],
    ours: bool = False,
    share: float = 1.0,
    model: str = "",
) -> Row:
    """A method under several losses; its id and a label name the `share` of the training images or the `model`."""
    percent = f"{100 * share:g}"
    labels = {"method": TITLES.get(name, NOT_YET.get(name, name))} | ({"share": f"{percent} %"} if share < 1 else {})
    labels |= {"model": model} if model else {}
    id = f"{name}_{percent}" if share < 1 else f"{name}_{role}" if model else name
    if name in NOT_YET:
        return Row(id, labels, {}, ours, unavailable=WHY_NOT_YET)
    base = scale.base(setting, role)
    if share < 1:
        base = limited(base, share)
    runs = {loss.id: method(name, setting, role, loss)(base) for loss in losses}
    return Row(id, labels, runs, ours)
