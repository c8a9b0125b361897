"""Question 3 of scale small: DM(CE) over MCE at equal alpha, on Mixup, CutMix and Puzzle-Mix."""

from functools import partial

from experiments.decoupled import DYNAMIC, DYNAMIC_ALPHA, DYNAMIC_ETA, STATIC_ALPHA, STATIC_ETA, TITLES, decoupled
from experiments.photographs import Arm, on, question
from experiments.scale import Scale
from experiments.table import Table


def _arms(name: str) -> tuple[Arm, Arm]:
    """A mixer with DM's alpha under both losses; eta as the paper has it."""
    alpha, eta = (DYNAMIC_ALPHA, DYNAMIC_ETA) if name in DYNAMIC else (STATIC_ALPHA, STATIC_ETA)
    title, dm = f"{TITLES[name]}, α {alpha:g}", partial(decoupled, eta=eta)
    return (
        (name, f"{title}, MCE", on(name, alpha=alpha), ""),
        (f"{name}_dm", f"{title}, DM(CE)", on(name, dm, alpha), name),
    )


ARMS = tuple(arm for name in ("mixup", "cutmix", "puzzlemix") for arm in _arms(name))


def build(scale: Scale) -> Table:
    return question(scale, 3, "Photographs, question 3: DM(CE) and MCE at equal α", ARMS, blocks=8, endpoints=2)
