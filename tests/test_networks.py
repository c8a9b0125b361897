"""Networks as users have them: compiled, in wrappers, in moving averages, and with outputs that are no tensors."""

from types import SimpleNamespace

import pytest
import timm
import torch
from batches import stream
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel

import lumix
from lumix.integrations.attention import check_class_attention, recorded_attention
from lumix.mixers.base import hooks_run, unwrapped
from lumix.mixers.puzzlemix import input_saliency

CLASSES, SIZE = 5, 6
IMAGES = torch.rand(SIZE, 3, 16, 16, generator=stream())
LABELS = torch.arange(SIZE) % CLASSES


class Wrapper(nn.Module):
    """As FSDP and Fabric hold a network."""

    def __init__(self, network, name):
        super().__init__()
        self.add_module(name, network)
        self.name = name

    def forward(self, images):
        return self.get_submodule(self.name)(images)


def compiled(network):
    return torch.compile(network, backend="eager")


def compiled_before(network):
    """Compiled code without the hooks exists already."""
    model = compiled(network)
    with torch.no_grad():
        model(IMAGES)
    return model


def compiled_in_place(network):
    network.compile(backend="eager")
    return network


WRAPPERS = {
    "bare": lambda network: network,
    "compiled": compiled,
    "compiled before": compiled_before,
    "compiled in place": compiled_in_place,
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "ModelEmaV3": ModelEmaV3,
    "FSDP": lambda network: Wrapper(network, "_fsdp_wrapped_module"),
    "nested": lambda network: compiled(Wrapper(compiled(nn.DataParallel(network)), "_forward_module")),
}


@pytest.fixture(autouse=True)
def _fresh():
    torch.manual_seed(0)
    yield
    torch.compiler.reset()


def transformer():
    return timm.create_model(
        "deit_tiny_patch16_224", img_size=16, patch_size=4, depth=2, embed_dim=24, num_heads=2, num_classes=CLASSES
    ).eval()


def stages():
    layers = nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, CLASSES, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers).eval()


def network_of(wrapper):
    network = stages()
    return WRAPPERS[wrapper](network), network


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_manifold_mix_works_through(wrapper):
    model, network = network_of(wrapper)
    batch = lumix.ManifoldMix(("0",))(IMAGES, LABELS, stream())
    weight = batch.own_weight.view(-1, 1, 1, 1)
    inner = network[0](IMAGES)
    expected = network[1:](weight * inner + (1 - weight) * inner[batch.partner])
    for _ in range(3):
        with torch.no_grad(), lumix.hidden_mixing(model, batch):
            logits = model(batch.images)
        torch.testing.assert_close(logits, expected)
        with torch.no_grad():
            torch.testing.assert_close(model(IMAGES), network(IMAGES))  # afterwards nothing is mixed
    assert lumix.MixLoss()(logits, batch).isfinite()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_attention_is_recorded_through(wrapper):
    network = transformer()
    model = WRAPPERS[wrapper](network)
    check_class_attention(model)
    with torch.no_grad(), recorded_attention(network) as expected:
        network(IMAGES)
    for _ in range(2):
        with torch.no_grad(), recorded_attention(model) as seen:
            model(IMAGES)
        assert torch.equal(seen[-1], expected[-1])


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_puzzle_mix_looks_through(wrapper):
    model, network = network_of(wrapper)
    torch.testing.assert_close(input_saliency(model, IMAGES, LABELS), input_saliency(network, IMAGES, LABELS))


def test_a_whole_compiled_step_is_mixed_too():
    network = stages()
    step = torch.compile(lambda images: network(images), backend="eager")
    with torch.no_grad():
        clean = step(IMAGES)
        with lumix.hidden_mixing(network, lumix.ManifoldMix(("0",))(IMAGES, LABELS, stream())):
            mixed = step(IMAGES)
    assert not torch.allclose(clean, mixed)


def test_distributed_data_parallel_is_looked_through(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(stages())
        batch = lumix.ManifoldMix(("2",))(IMAGES, LABELS, stream())
        with lumix.hidden_mixing(model, batch):
            loss = lumix.MixLoss()(model(batch.images), batch)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    finally:
        torch.distributed.destroy_process_group()


def test_data_parallel_on_several_devices_is_refused_at_once():
    model = nn.DataParallel(stages())
    model.device_ids = [0, 1]
    with pytest.raises(ValueError, match=r"DataParallel on 2 devices.*use DistributedDataParallel"), hooks_run(model):
        pass


class Dimmed(nn.Module):
    """A wrapper of a user's, under the name that torch's have."""

    def __init__(self, network):
        super().__init__()
        self.module = network

    def forward(self, images):
        return self.module(images * torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1))


def test_a_wrapper_that_is_no_librarys_is_called():
    dimmed = Dimmed(stages())
    assert unwrapped(compiled(dimmed)) is unwrapped(dimmed) is dimmed
    network = nn.ModuleDict({"module": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    assert unwrapped(network) is network
    pixels = IMAGES.clone().requires_grad_()
    nn.functional.cross_entropy(dimmed(pixels), LABELS, reduction="sum").backward()
    torch.testing.assert_close(input_saliency(dimmed, IMAGES, LABELS), pixels.grad.square().mean(1).sqrt())


def test_no_pass_through_the_attention_is_said():
    with pytest.raises(RuntimeError, match="no attention was recorded"), recorded_attention(transformer()):
        pass


@pytest.mark.parametrize("loss", [lumix.MixLoss(), lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1, eta=1.0)])
def test_a_batch_left_to_the_network_and_not_mixed_there_is_refused(loss):
    network = stages()
    batch = lumix.ManifoldMix(("2",))(IMAGES, LABELS, stream())
    for same in (batch, batch.to("cpu"), batch.to(torch.float64)):
        with pytest.raises(ValueError, match=r"behind '2', .* not: call the network within `with lumix\.hidden_mixing"):
            loss(network(IMAGES), same, stream())
    with lumix.hidden_mixing(network, batch.to("cpu")):
        logits = network(IMAGES)
    assert loss(logits, batch, stream()).isfinite()


LOGITS = torch.randn(SIZE, CLASSES, generator=stream())


@pytest.mark.parametrize("output", [SimpleNamespace(logits=LOGITS), {"logits": LOGITS}, (LOGITS,), LOGITS])
def test_logits_are_taken_out_of_outputs(output):
    batch = lumix.CutMix()(IMAGES, LABELS, stream())
    loss = lumix.MixLoss(lumix.LUMixRule(), eta=1.0)
    assert torch.equal(loss(output, batch, stream()), loss(LOGITS, batch, stream()))


@pytest.mark.parametrize(
    "output", [(LOGITS, LOGITS), [LOGITS, LOGITS], {"loss": LOGITS}, SimpleNamespace(x=1), None, 3]
)
def test_outputs_without_plain_logits_are_refused(output):
    batch = lumix.CutMix()(IMAGES, LABELS, stream())
    with pytest.raises(ValueError, match=r"the network returned .*, not logits \[B, C\]: pass the tensor itself"):
        lumix.MixLoss()(output, batch)


@pytest.mark.parametrize("batch", [LABELS, LOGITS, None, (IMAGES, LABELS)])
def test_what_is_no_mixed_batch_is_refused(batch):
    with pytest.raises(ValueError, match="batch must be the MixedBatch of a mixer, not a"):
        lumix.MixLoss()(LOGITS, batch)
