"""Question 4 of scale small: LUMix on Puzzle-Mix and on SaliencyMix, and beside DM(CE) on CutMix."""

from experiments.decoupled import STATIC_ETA, on
from experiments.methods import lumix
from experiments.photographs import Arm, question
from experiments.scale import Scale
from experiments.table import Table

ARMS: tuple[Arm, ...] = (
    ("puzzlemix", "Puzzle-Mix", on("puzzlemix"), ""),
    ("puzzlemix_lumix", "LUMix on Puzzle-Mix", on("puzzlemix", lumix), "puzzlemix"),
    ("saliencymix", "SaliencyMix", on("saliencymix"), ""),
    ("saliencymix_lumix", "LUMix on SaliencyMix", on("saliencymix", lumix), "saliencymix"),
    ("cutmix_lumix", "LUMix on CutMix", on("cutmix", lumix), ""),
    ("cutmix_dm", "DM(CE) on CutMix", on("cutmix", eta=STATIC_ETA), ""),
    ("cutmix_dm_lumix", "DM(CE) with LUMix on CutMix", on("cutmix", lumix, eta=STATIC_ETA), "cutmix_lumix"),
)


def build(scale: Scale) -> Table:
    return question(scale, 4, "Photographs, question 4: LUMix on other mixers and with DM(CE)", ARMS, 5, endpoints=2)
