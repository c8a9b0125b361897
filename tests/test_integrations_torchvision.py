"""The batch transform in torchvision's own compositions and in workers."""

import pytest
import torch
from batches import stream
from torch.utils.data import DataLoader, TensorDataset, default_collate

import lumix
from lumix.integrations.torchvision import Mix

v2 = pytest.importorskip("torchvision.transforms.v2", reason="needs pip install .[train]")
IMAGES, LABELS = torch.rand(6, 3, 8, 8, generator=stream()), torch.arange(6)


def test_it_mixes_as_the_mixer_does():
    mixed, expected = Mix(lumix.Switch(), seed=3)(IMAGES, LABELS), lumix.Switch()(IMAGES, LABELS, stream(3))
    assert torch.equal(mixed.images, expected.images)
    assert torch.equal(mixed.own_weight, expected.own_weight)


def test_in_compositions_and_with_tv_tensors():
    from torchvision import tv_tensors

    either = v2.RandomChoice([Mix(lumix.Mixup()), Mix(lumix.CutMix())])
    whole = v2.Compose([v2.Normalize([0.5] * 3, [0.5] * 3), either])
    batch = whole(tv_tensors.Image(IMAGES), LABELS)
    assert isinstance(batch, lumix.MixedBatch)
    assert type(batch.images) is type(batch.own_mask()) is torch.Tensor
    assert isinstance(v2.Compose([Mix(lumix.CutMix())])((IMAGES, LABELS)), lumix.MixedBatch)


def test_workers_draw_their_own():
    mix = Mix(lumix.Mixup())
    data = TensorDataset(IMAGES.repeat(4, 1, 1, 1), LABELS.repeat(4))
    loader = DataLoader(
        data, 6, num_workers=2, multiprocessing_context="fork", collate_fn=lambda items: mix(*default_collate(items))
    )
    weights = [float(batch.own_weight[0]) for _ in range(2) for batch in loader]
    assert len(set(weights)) == 8


@pytest.mark.parametrize("inputs", [(IMAGES,), ({"image": IMAGES},), ([(IMAGES[0], 1)],), (IMAGES, [0] * 6)])
def test_other_inputs_are_refused(inputs):
    with pytest.raises(ValueError, match=r"give a batch as \(images, labels\)"):
        Mix(lumix.CutMix())(*inputs)
