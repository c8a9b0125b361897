"""Question 3 of scale small: DM(CE) over MCE at equal alpha, on Mixup, CutMix and Puzzle-Mix."""

from experiments.decoupled import DYNAMIC, DYNAMIC_ALPHA, DYNAMIC_ETA, STATIC_ALPHA, STATIC_ETA, TITLES, on
from experiments.photographs import Arm, question
from experiments.scale import Scale
from experiments.table import Table


def _arms(name: str) -> tuple[Arm, Arm]:
    """A mixer with DM's alpha under both losses; eta as the paper has it."""
    alpha, eta = (DYNAMIC_ALPHA, DYNAMIC_ETA) if name in DYNAMIC else (STATIC_ALPHA, STATIC_ETA)
    title = f"{TITLES[name]}, α {alpha:g}"
    return (
        (name, f"{title}, MCE", on(name, alpha=alpha), ""),
        (f"{name}_dm", f"{title}, DM(CE)", on(name, alpha=alpha, eta=eta), name),
    )


ARMS = tuple(arm for name in ("mixup", "cutmix", "puzzlemix") for arm in _arms(name))


def build(scale: Scale) -> Table:
    return question(scale, 3, "Photographs, question 3: DM(CE) and MCE at equal α", ARMS, blocks=8, endpoints=2)
