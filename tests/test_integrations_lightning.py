"""The mixin under Lightning itself: precisions, training alone, and a run that goes on as one that was not stopped."""

import pytest
import timm
import torch
from batches import stream
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lumix
from lumix.integrations.lightning import Mixing

lightning = pytest.importorskip("pytorch_lightning", reason="needs pip install .[integrations]")
QUIET = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False) | {"accelerator": "cpu"}


class Net(Mixing, lightning.LightningModule):
    def __init__(self, mixer=None):
        super().__init__()
        torch.manual_seed(0)
        self.mixer = mixer or lumix.Switch(mode="elem")
        self.mix_loss = lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1, eta=1.0)
        self.body, self.head = nn.Linear(192, 16), nn.Linear(16, 10)
        self.weights, self.seen = [], []

    def forward(self, images):
        return self.head(self.body(images.flatten(1)).relu())

    def training_step(self, batch, _index):
        assert isinstance(batch, lumix.MixedBatch)
        assert batch.own_weight.dtype == torch.float32
        self.weights.append(batch.own_weight)
        loss = self.mixed_loss(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, _index):
        images, labels = batch
        self.seen.append(labels)
        self.log("val", nn.functional.cross_entropy(self(images), labels))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def loader():
    return DataLoader(TensorDataset(torch.rand(24, 3, 8, 8, generator=stream()), torch.arange(24) % 10), 4)


def fit(net, checkpoint=None, **options):
    trainer = lightning.Trainer(**{"enable_checkpointing": False, "max_epochs": 2} | QUIET | options)
    trainer.fit(net, loader(), loader(), ckpt_path=checkpoint)
    return trainer


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_training_is_mixed_and_validation_is_not(precision):
    net = Net()
    trainer = fit(net, precision=precision)
    assert trainer.global_step == 12
    assert len({tuple(weights.tolist()) for weights in net.weights}) == 12
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert torch.equal(net.seen[-1], torch.arange(20, 24) % 10)


def test_hidden_layers_and_saliency_of_the_network_itself():
    for mixer in (lumix.ManifoldMix(("body",)), lumix.PuzzleMix()):
        fit(Net(mixer), max_epochs=1)


def test_attention_is_that_of_the_transformer_in_the_module():
    net = Net(lumix.CutMix())
    net.body = timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2)
    net.forward = lambda images: net.body(images)
    net.mix_loss = lumix.MixLoss(lumix.TransMixRule())
    seen = []
    net.mix_loss.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[3]))
    fit(net, max_epochs=1)
    assert [list(attention.shape) for attention in seen] == [[4, 4]] * 6
    net.forward = lambda images: net.body(images) + net.body(images)
    with pytest.raises(ValueError, match="ran 2 times in one forward pass"):
        fit(net, max_epochs=1)
    convolutional = Net(lumix.CutMix())
    convolutional.mix_loss = net.mix_loss
    with pytest.raises(ValueError, match="Net has no class token"):
        fit(convolutional, max_epochs=1)
    convolutional.mixer = lumix.CutMix
    with pytest.raises(ValueError, match=r"mixer must be a mixer as lumix.CutMix\(\), not the class itself"):
        fit(convolutional, max_epochs=1)


def test_a_resumed_run_ends_in_the_weights_of_one_that_was_not_stopped(tmp_path):
    whole, first, second = Net(), Net(), Net()
    fit(whole)
    fit(first, max_epochs=1).save_checkpoint(tmp_path / "first.ckpt")
    fit(second, tmp_path / "first.ckpt")
    assert len(second.weights) == 6
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_batches_of_one_accumulated_step_and_seeds_differ():
    net, other = Net(), Net()
    other.mix_seed = 1
    for each in (net, other):
        fit(each, accumulate_grad_batches=3, max_epochs=1)
    assert len({tuple(weights.tolist()) for weights in net.weights + other.weights}) == 12


def test_batches_that_a_collate_fn_has_mixed_stay():
    net, generator, mixer = Net(), stream(), lumix.CutMix()
    collate = lambda items: mixer(*torch.utils.data.default_collate(items), generator)  # noqa: E731
    mixed = DataLoader(loader().dataset, 4, collate_fn=collate)
    lightning.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET).fit(net, mixed, loader())
    assert len(net.weights) == 6


def test_a_module_without_a_place_for_it_is_told():
    with pytest.raises(TypeError, match=r"write class Late\(Mixing, LightningModule\)"):
        type("Late", (lightning.LightningModule, Mixing), {})
    net = Net()
    wrong = DataLoader([{"image": torch.rand(3, 8, 8), "label": 1}] * 4, 4)
    trainer = lightning.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    with pytest.raises(ValueError, match=r"must be \(images, labels\), not a dict"):
        trainer.fit(net, wrong, loader())
