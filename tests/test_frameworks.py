"""Batches as training frameworks handle them: cast, moved, walked, counted, sliced, copied, sent."""

import copy
import pickle
from dataclasses import fields

import pytest
import torch
from batches import ALL_MIXERS, images_of, labels_of, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

import lumix
from lumix.integrations.timm import Criterion, Mixup

MAKERS = [*ALL_MIXERS, lumix.FMix, lumix.ResizeMix, lambda: lumix.ManifoldMix(("layer1",))]
FLOATS = st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64])


@st.composite
def records(draw):
    """A batch of any mixer, or the target that stands in for timm's."""
    generator, size = stream(draw(st.integers(0, 99))), 2 * draw(st.integers(1, 4))
    make = draw(st.sampled_from([*MAKERS, None]))
    images, labels = images_of(size), labels_of(size)
    if make is None:
        return Mixup(0.8, 1.0, mode="elem", num_classes=10, generator=generator)(images, labels)[1]
    return make()(images, labels, generator)


def tensors(record):
    return pytree.tree_leaves_with_path(record)


def assert_same(left, right, but=()):
    """Equal fields, apart from some."""
    for (path, one), (_, other) in zip(tensors(left), tensors(right), strict=True):
        if pytree.keystr(path).rsplit(".")[-1] not in but:
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


@settings(max_examples=60, deadline=None)
@given(records(), FLOATS)
def test_a_cast_is_for_the_images(record, dtype):
    cast = record.to(dtype)
    assert_same(cast, record, but=("images",))
    if isinstance(record, lumix.MixedBatch):
        assert cast.images.dtype == dtype
        assert torch.equal(cast.images, record.images.to(dtype))


@settings(max_examples=60, deadline=None)
@given(records(), FLOATS)
def test_a_cast_of_every_field_leaves_the_weights(record, dtype):
    """As Lightning casts for true half precision: a copy, to whose fields the cast ones are assigned."""
    cast = copy.deepcopy(record)
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            setattr(cast, field.name, value.to(dtype))
    assert_same(cast, record, but=("images",))


@settings(max_examples=60, deadline=None)
@given(records())
def test_records_are_walked_copied_and_sent_whole(record):
    leaves, spec = pytree.tree_flatten(record)
    assert all(isinstance(leaf, Tensor) for leaf in leaves)
    assert {len(leaf) for leaf in leaves} == {len(record)} == {record.size(0)}
    for other in (pytree.tree_unflatten(leaves, spec), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert type(other) is type(record)
        assert_same(other, record)
    assert {tensor.device.type for tensor in pytree.tree_leaves(record.to("meta", non_blocking=True))} == {"meta"}
    if isinstance(record, lumix.MixedBatch):
        assert_same(type(record)(dict(record.items())), record)  # as accelerate and transformers make them anew
        assert {**record}.keys() == set(record.keys())


@settings(max_examples=30, deadline=None)
@given(records(), st.data())
def test_slices_of_a_walk_are_slices_of_the_record(record, data):
    if getattr(record, "hidden", None) is not None:
        with pytest.raises(ValueError, match="cannot be split"):
            record[:1]
        return
    stop = data.draw(st.integers(1, len(record)))
    assert_same(pytree.tree_map(lambda tensor: tensor[:stop], record), record[:stop])


@pytest.mark.parametrize("index", [0, None, ..., (slice(None), 0), torch.tensor(1), 1.5])
def test_other_indices_are_refused(index):
    batch = lumix.CutMix()(images_of(4), labels_of(4), stream())
    with pytest.raises(TypeError, match="index a MixedBatch with a slice or a tensor"):
        batch[index]


def test_images_of_bytes_stay_bytes_and_whole_numbers_are_no_cast():
    batch = lumix.CutMix()(images_of(4, torch.uint8), labels_of(4), stream())
    assert batch.to(torch.float16).images.dtype == torch.uint8
    with pytest.raises(ValueError, match=r"dtypes of floating point, not to torch\.int64"):
        batch.to(torch.int64)
    assert batch.to(memory_format=torch.channels_last).images.is_contiguous(memory_format=torch.channels_last)
    assert batch.to("cpu", torch.float16, non_blocking=True).size() == batch.size() == batch.images.shape


# ------------------------------------------------------------------------------------------------- the packages


def loader_of(collate):
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(images_of(12), labels_of(12)), 4, collate_fn=collate)


@pytest.mark.parametrize("dispatch", [False, True])
def test_accelerate(dispatch):
    accelerate = pytest.importorskip("accelerate")
    utils = accelerate.utils
    config = utils.DataLoaderConfiguration(dispatch_batches=dispatch)
    accelerator, generator = accelerate.Accelerator(cpu=True, dataloader_config=config), stream()
    mixer = lumix.Switch()
    loader = loader_of(lambda items: mixer(*torch.utils.data.default_collate(items), generator))
    batches = list(accelerator.prepare(loader))
    assert [(type(batch), len(batch)) for batch in batches] == [(lumix.MixedBatch, 4)] * 3
    batch = batches[0]
    assert utils.find_batch_size(batch) == 4
    assert_same(utils.slice_tensors(batch, slice(0, 2)), batch[:2])
    assert len(utils.concatenate([batch, batch])) == 8


@pytest.mark.filterwarnings("default", "error:Trying to infer")  # its own warnings are no concern; counting B is
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "64-true", "bf16-mixed"])
def test_lightning(precision):
    lightning = pytest.importorskip("pytorch_lightning")
    generator, mixup = stream(), Mixup(0.8, 1.0, num_classes=10)
    mixer, loss = lumix.Switch(), lumix.MixLoss(lumix.LUMixRule(), eta=1.0, smoothing=0.1)
    criterion = Criterion(loss)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 12 * 8, 10))

        def training_step(self, batch, _index):
            if isinstance(batch, lumix.MixedBatch):
                assert batch.own_weight.dtype == torch.float32
                value = loss(self.network(batch.images), batch, generator)
                self.log("loss", value)
                return value
            images, target = batch
            assert target.own_weight.dtype == torch.float64
            return criterion(self.network(images), target)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    for collate in (
        lambda items: mixer(*torch.utils.data.default_collate(items), generator),
        lambda items: mixup(*torch.utils.data.default_collate(items)),
    ):
        trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", precision=precision, **options)
        trainer.fit(Module(), loader_of(collate))
        assert trainer.global_step == 3
