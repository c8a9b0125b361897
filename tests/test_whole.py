"""What every mixer of whole batches keeps: its probability, and the same result on the GPU as on the CPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from batches import images_of, labels_of, stream
from test_attentive import brightness
from test_saliencymix import normalised, spots

from lumix.batch import Kind
from lumix.mixers.attentive import AttentiveCutMix
from lumix.mixers.fmix import FMix
from lumix.mixers.resizemix import ResizeMix
from lumix.mixers.saliencymix import SaliencyMix
from training.data.sets import shapes

ATTENTIVE = partial(AttentiveCutMix, brightness, size=None)
Build = Callable[..., Any]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("build", "images"),
    [
        (FMix, lambda: images_of(6)),
        (ResizeMix, lambda: images_of(6)),
        (ATTENTIVE, lambda: images_of(6, height=12, width=9)),
        (SaliencyMix, lambda: normalised(shapes(6, 0).images)),
    ],
    ids=["fmix", "resizemix", "attentive", "saliencymix"],
)
def test_the_same_on_the_gpu(build: Build, images: Build) -> None:
    images, labels = images(), labels_of(6)
    batch = build()(images, labels, stream())
    on_gpu = build()(images.to("cuda"), labels.to("cuda"), stream())
    assert torch.equal(on_gpu.own_mask().cpu(), batch.own_mask())
    torch.testing.assert_close(on_gpu.own_weight.cpu(), batch.own_weight)
    torch.testing.assert_close(on_gpu.images.cpu(), batch.images, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "images", "kind"),
    [
        (FMix, lambda: images_of(6), Kind.MASK),
        (ResizeMix, lambda: images_of(6), Kind.BOX),
        (ATTENTIVE, lambda: images_of(2), Kind.MASK),
        (SaliencyMix, lambda: spots(4)[0], Kind.BOX),
    ],
    ids=["fmix", "resizemix", "attentive", "saliencymix"],
)
def test_a_batch_is_mixed_with_probability_prob(build: Build, images: Build, kind: Kind) -> None:
    images = images()
    labels = labels_of(len(images))
    batch = build(prob=0.0)(images, labels, stream())
    assert torch.equal(batch.images, images)
    assert batch.is_kind(Kind.NONE).all()
    assert (batch.own_weight == 1).all()
    generator, mixer = stream(), build(prob=0.3)
    mixed = sum(bool(mixer(images, labels, generator).is_kind(kind).all()) for _ in range(400))
    assert 80 < mixed < 160  # 120 expected (SaliencyMix: below, as tiny boxes change nothing), standard deviation 9
