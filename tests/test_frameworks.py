"""Batches as training frameworks handle them: walked, copied, sent, moved, sliced, like any tuple of tensors."""

import copy
import pickle

import pytest
import timm
import torch
from batches import ALL_MIXERS, images_of, labels_of, stream
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.transforms import v2

import lumix
import training.parts  # noqa: F401
from lumix.integrations.timm import Criterion, MixTarget, Mixup
from lumix.integrations.torchvision import Mix
from lumix.registry import PARTS, from_dict, get_part, to_dict
from lumix.semi import SelfTuning

MAKERS = [*ALL_MIXERS, lumix.FMix, lumix.ResizeMix, lambda: lumix.ManifoldMix(("layer1",))]


def assert_same(left, right):
    assert type(left) is type(right)
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("make", MAKERS)
def test_batches_are_walked_copied_sent_and_moved_whole(make):
    batch = make()(images_of(4), labels_of(4), stream())
    leaves, spec = pytree.tree_flatten(batch)
    assert {len(leaf) for leaf in leaves if isinstance(leaf, Tensor)} == {batch.size} == {4}
    for other in (pytree.tree_unflatten(leaves, spec), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert_same(other, batch)
    moved = batch.to("meta", non_blocking=True)
    assert {part.device.type for part in moved if isinstance(part, Tensor)} == {"meta"}
    if batch.hidden is not None:
        with pytest.raises(ValueError, match="cannot be split"):
            batch.rows(slice(1))
        return
    assert_same(batch.rows(slice(2)), batch.rows(torch.arange(2)))
    assert_same(pytree.tree_map_only(Tensor, lambda tensor: tensor[:2], batch), batch.rows(slice(2)))


def test_a_target_of_the_drop_in_goes_where_timms_goes_and_keeps_its_batch():
    target = Mixup(0.8, 1.0, num_classes=10)(images_of(6), labels_of(6))[1]
    assert target.batch.images.untyped_storage().nbytes() == 0  # no image is kept alive
    order = torch.tensor([5, 0, 3])
    for kept in (target.to("cpu"), target.clone(), target.detach(), pickle.loads(pickle.dumps(target))):
        assert isinstance(kept, MixTarget)
        assert_same(kept.batch, target.batch)
    for cast in (target.half(), target.bfloat16(), target.double(), target.half().float(), target.type(torch.half)):
        assert_same(cast.batch, target.batch)
    assert target.type_as(torch.ones(1, dtype=torch.double)).batch.own_weight.dtype == torch.float32
    assert target.to("meta").batch.labels.device.type == "meta"
    for index, rows in ((slice(2, 5), slice(2, 5)), (order, order)):
        assert_same(target[index].batch, target.batch.rows(rows))
    for computed in (target.gt(0), torch.cat((target, target)), target.argmax(1), target[0], target[:, :3], 2 * target):
        assert type(computed) is Tensor


def loader_of(collate, **options):
    return DataLoader(TensorDataset(images_of(12), labels_of(12)), 4, collate_fn=collate, **options)


def test_accelerate():
    accelerate = pytest.importorskip("accelerate")
    accelerator, generator, mixer = accelerate.Accelerator(cpu=True), stream(), lumix.Switch()
    batches = list(accelerator.prepare(loader_of(lambda items: mixer(*default_collate(items), generator))))
    assert [(type(batch), batch.size) for batch in batches] == [(lumix.MixedBatch, 4)] * 3
    assert accelerate.utils.find_batch_size(batches[0]) == 4


@pytest.mark.filterwarnings("default")  # its own warnings are no concern
@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_targets_of_the_drop_in_keep_their_weights_under_lightning(precision):
    lightning = pytest.importorskip("pytorch_lightning")
    mixup, criterion = Mixup(0.8, 1.0, num_classes=10), Criterion(lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1))

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 12 * 8, 10))

        def training_step(self, batch, _index):
            assert batch[1].batch.own_weight.dtype == torch.float32
            return criterion(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", precision=precision, **options)
    trainer.fit(Module(), loader_of(lambda items: mixup(*default_collate(items))))
    assert trainer.global_step == 3


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


EXAMPLES = [
    part.cls(get_part("embedded").cls()) if name == "attentivecutmix" else part.cls()
    for name, part in PARTS.items()
    if part.kind in ("mixer", "rule", "law", "term")
]


@pytest.mark.parametrize("part", [lumix.RandomShuffle(), lumix.Either(lumix.Mixup(), lumix.FMix())])
@pytest.mark.filterwarnings("default")
def test_mixers_that_hold_mixers_are_hyper_parameters_of_lightning(part, tmp_path):
    saving = pytest.importorskip("pytorch_lightning.core.saving")
    saving.save_hparams_to_yaml(tmp_path / "hparams.yaml", {"part": part})


@pytest.mark.parametrize(
    "part",
    [
        *EXAMPLES,
        lumix.CutMix(minmax=(0.2, 0.7)),
        lumix.LUMixRule(law=lumix.BetaLaw(3.0)),
        lumix.ManifoldMix(("a", "b")),
    ],
    ids=lambda part: type(part).__name__,
)
def test_parts_are_read_from_the_lists_and_mappings_of_omegaconf(part):
    omegaconf = pytest.importorskip("omegaconf")
    assert from_dict(omegaconf.OmegaConf.create(to_dict(part))) == part


def test_hydras_list_of_terms_names_its_remedy():
    omegaconf = pytest.importorskip("omegaconf")
    with pytest.raises(ValueError, match="say _convert_: partial there"):
        lumix.MixLoss(terms=omegaconf.OmegaConf.create([lumix.CrossEntropy()], flags={"allow_objects": True}))


WRONG = [3, "cutmix", lumix.CutMix, lumix.MixLoss, torch.zeros(2), [1.0], torch.nn.functional.cross_entropy, object()]
TAKERS = {
    "rule": lumix.MixLoss,
    "terms": lambda value: lumix.MixLoss(terms=value),
    "each of terms": lambda value: lumix.MixLoss(terms=[value]),
    "law": lambda value: lumix.LUMixRule(law=value),
    "loss": Criterion,
    "mixer": Mix,
    "network": lumix.AutoMix,
    "network of Self-Tuning": SelfTuning,
    "loss of AutoMix": lambda value: lumix.AutoMix(NETWORK, value),
    "loss of Self-Tuning": lambda value: SelfTuning(NETWORK, loss=value),
    "mixer of Self-Tuning": lambda value: SelfTuning(NETWORK, value, value),
    "model of PuzzleMix": lambda value: lumix.PuzzleMix()(images_of(4, height=8), labels_of(4), stream(), value),
    "model of hidden_mixing": lambda value: lumix.hidden_mixing(value, HIDDEN).__enter__(),
    "batch of hidden_mixing": lambda value: lumix.hidden_mixing(NETWORK, value).__enter__(),
    "seed": lambda value: Mixup(seed=[value]),
    "seed of Mix": lambda value: Mix(lumix.CutMix(), seed=[value]),
    "views of Self-Tuning": lambda value: SelfTuning(NETWORK).prepare(value, labels_of(4), stream()),
}
HIDDEN = lumix.ManifoldMix(("layer1",))(images_of(4), labels_of(4), stream())
NETWORK = timm.create_model("resnet10t", num_classes=5)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("taker", TAKERS)
def test_a_wrong_part_is_named_with_what_fits(taker, wrong):
    with pytest.raises(ValueError, match=rf"{taker.split(' of ')[0]}.* must be "):
        TAKERS[taker](wrong)
