"""The first draws of every mixer and law are those of draws.json, on all machines: another draw is another experiment.

Six digits, no share near 1 - 1e-16 (a processor's last digit decides its side); pixels too where they were copied.
"""

import hashlib
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lumix

FILE = Path(__file__).with_name("draws.json")
MODES = ("batch", "pair", "elem")
PLANNED: dict[str, Any] = {
    "mixup": partial(lumix.Mixup, 0.8),
    "mixup, small alpha": partial(lumix.Mixup, 0.01),
    "cutmix": partial(lumix.CutMix, 1.0),
    "cutmix, full": partial(lumix.CutMix, 0.5, box_rule="full"),
    "cutmix, minmax": partial(lumix.CutMix, minmax=(0.2, 0.8)),
    "cutmix, as drawn": partial(lumix.CutMix, correct_lam=False),
    "switch": lumix.Switch,
    "manifoldmix": lumix.ManifoldMix,
}
MIXERS: dict[str, Any] = {
    f"{name}, {mode}, {pairing}": make(mode=mode, pairing=pairing, prob=0.9)
    for name, make in PLANNED.items()
    for mode in MODES
    for pairing in ("flip", "permutation")
} | {
    "saliencymix": lumix.SaliencyMix(0.2),
    "puzzlemix": lumix.PuzzleMix(2.0),
    "attentivecutmix": lumix.AttentiveCutMix(nn.Identity()),
    "resizemix": lumix.ResizeMix(prob=0.9),
    "fmix": lumix.FMix(0.2),
    "random_lambda": lumix.RandomLambda(patch=4),
    "shuffle": lumix.RandomShuffle(lumix.CutMix(), 4),
    "either": lumix.Either(lumix.Mixup(), lumix.ResizeMix(), prob=0.8),
}
LAWS: dict[str, Any] = {"beta": lumix.BetaLaw(), "normal": lumix.NormalLaw(5.0), "constant": lumix.ConstantLaw()}


def text(drawn: Any) -> str:
    """Shapes and numbers; but no mask, which a Fourier transform makes, and not what is known of kinds."""
    if isinstance(drawn, Tensor):
        return f"{list(drawn.shape)}: " + " ".join(f"{number:.6g}" for number in drawn.flatten().tolist())
    if isinstance(drawn, dict):
        return ", ".join(text(value) for name, value in sorted(drawn.items()) if name not in ("mask", "known"))
    return repr(drawn)


def found() -> dict[str, str]:
    lines: dict[str, list[str]] = {}
    for seed in range(3):
        for name, mixer in MIXERS.items():
            for size in (8,) if "flip" in name else (8, 7):
                draws = mixer.draw((size, 3, 32, 32), torch.Generator().manual_seed(seed))
                lines.setdefault(name, []).append(text(asdict(draws)))
        for name, law in LAWS.items():
            lines.setdefault(name, []).append(text(law.draw(8, torch.Generator().manual_seed(seed))))
        images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        for name in ("cutmix, batch, flip", "cutmix, elem, permutation", "saliencymix", "resizemix"):
            batch = MIXERS[name](images, torch.arange(8), torch.Generator().manual_seed(seed))
            lines.setdefault(f"{name}: pixels", []).append(text(batch.images))
    return {name: hashlib.sha256("\n".join(each).encode()).hexdigest() for name, each in lines.items()}


def test_draws_are_those_of_the_file() -> None:
    assert found() == json.loads(FILE.read_text())


if __name__ == "__main__":  # writes the file anew
    FILE.write_text(json.dumps(found(), indent=1) + "\n")
