"""Top-1 and top-2 accuracy on mixed images (Decoupled Mixup, figure A1): does a model see both classes of a mixture?"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from evaluation.evaluation import Outcome
from evaluation.images import Card, Device
from evaluation.robustness.accuracy import normaliser, percent, pixel_batches
from lumix.checks import check_choice
from lumix.mixers.basic import CutMix, Mixup
from training.mixed_accuracy import mix_with_next, mixed_hits
from training.rng import stream_seed

MIXERS = {"mixup": Mixup, "cutmix": CutMix}


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Values "top1_mixed" and "top2_mixed" over pairs of different classes, and both with "_all" over all pairs.

    The set is shuffled once, so that class folders do not pair each class with itself; then every image is mixed with
    the next one of its batch, each with its own draw of lambda, in [0, 1] before normalisation.

    Arguments: "method", mixup or cutmix; "alpha" of its Beta, that of training; "seed"; "batch" in images.
    """
    check_choice("method", arguments["method"], tuple(MIXERS))
    mixer = MIXERS[arguments["method"]](arguments["alpha"], mode="elem")
    normalise = normaliser(card, device)
    seed = arguments["seed"]
    hits: Counter[str] = Counter()
    for place, images, labels in pixel_batches(card, device, arguments["batch"], shuffle_seed=seed):
        if len(images) < 2:
            raise ValueError(f"an image of the last batch of {arguments['batch']} has no partner: use another size")
        generator = torch.Generator().manual_seed(stream_seed(seed, place, "mixed accuracy"))
        batch = mix_with_next(mixer, images, labels, generator)
        with torch.inference_mode():
            first, both = mixed_hits(model(normalise(batch.images)), batch.labels, batch.partner_labels)
        differ = batch.labels != batch.partner_labels
        for name, counted in (("top1", first), ("top2", both), ("pairs", torch.ones_like(differ))):
            hits[f"{name}_mixed"] += int((counted & differ).sum())
            hits[f"{name}_mixed_all"] += int(counted.sum())
    values = {
        f"{name}_{pairs}": percent(hits[f"{name}_{pairs}"], hits[f"pairs_{pairs}"])
        for name in ("top1", "top2")
        for pairs in ("mixed", "mixed_all")
    }
    return Outcome(values, hits["pairs_mixed_all"])
