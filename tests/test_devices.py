"""The GPU path without a GPU: real draws, fake CUDA tensors; no tensor of another device and no wait for the device.

FakeTensorMode computes shapes, dtypes and devices as a GPU would, and has no values: whoever asks for one would wait
for a GPU. So would a copy to it that is not `non_blocking`: it waits for all that is queued. What may wait:
- in Puzzle-Mix the minimum cut, which is SciPy's, on the CPU, and transport, whose lists of claims have a length that
  only the device knows. Both are exact algorithms, and no form of fixed shape is as fast;
- FixMatch and Pseudo-Label, for the number of trusted images, by which their batches are cut, and RandAugment's
  operations on grey levels, which are Pillow's;
- AutoMix and SAMix with `mask_decays`, for the progress, a buffer, of which a loaded state is part;
- attention with batches that hold neither box nor mask: one that was cut and lost them is refused, not guessed;
- evaluations, which look at numbers once a batch, for their checks and counts.
Backward passes run without autograd's engine, which wants a GPU's streams.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from batches import stream
from test_combinations import FITTING, Network, named
from test_tasks import RUNS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lumix
from evaluation.segmentation import segmentation_loss
from evaluation.shuffling import shuffle_grid
from evaluation.ten_crop import ten_crop_logits
from lumix import random
from lumix.integrations.attention import class_attention
from lumix.mixers import paste, puzzlemix, resizemix, saliencymix
from lumix.mixers.base import Mixer
from lumix.registry import PARTS
from lumix.semi import SelfTuning, Views, guess_labels, mix_targets, pseudo_labels, soft_cross_entropy, squared_error
from training import loop
from training.build import frozen_network
from training.config import Execution
from training.data import feeds
from training.optim import build_updater
from training.process import Process
from training.rng import step_generator
from training.state import Statistics
from training.tasks import mixed

SIZE, SIDE, CLASSES = 6, 16, 4
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Gpu(TorchDispatchMode):
    """What touches a GPU is computed without values, all else for real; the transfer to the CPU is an error.

    So is one to the GPU that waits until the GPU has done all that it was given, except where a run is `settled`.
    """

    settled = False
    narrow = False  # whether it has no float64

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        there = [leaf for leaf in tensors if leaf.device.type == "cuda"]
        device = torch.device((kwargs or {}).get("device") or "cpu")
        if not there and device.type != "cuda":
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        here_any = [leaf for leaf in tensors if leaf.device.type == "cpu"]
        here = [leaf for leaf in here_any if leaf.ndim]
        if func in COPIES:
            target = device if func is COPIES[0] and (kwargs or {}).get("device") else args[0].device
            assert target.type == "cuda", f"{func} waits for the GPU"
            unqueued = (kwargs or {}).get("non_blocking") or (len(args) > 2 and args[2])
            assert unqueued or not here_any or self.settled, f"{func} to the GPU waits for all that is queued there"
        else:
            assert not here or not there, f"{func} is given tensors of the CPU and of the GPU"
        found = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor) and leaf.dtype == torch.float64]
        assert not (self.narrow and any(leaf.device.type == "cuda" for leaf in made)), f"{func} makes float64"
        return found


@pytest.fixture(autouse=True)
def gpu() -> Any:
    with FakeTensorMode(allow_non_fake_inputs=True), Gpu() as mode:
        yield mode


def on_gpu(value: Any) -> Any:
    return None if value is None else value.to("cuda", non_blocking=True)


def images_and_labels(channels: int = 3) -> tuple[Tensor, Tensor]:
    return on_gpu(torch.rand(SIZE, channels, SIDE, SIDE)), on_gpu(torch.arange(SIZE) % CLASSES)


def fitted(part: Any) -> Any:
    given = {name: FITTING[name] for name in part.arguments if name in FITTING}
    given |= {"first": lumix.Mixup(), "second": lumix.FMix()} if part.name == "either" else {}
    return part.cls(**given)


def gradients(root: Tensor) -> dict[Tensor, Tensor]:
    """Backward without autograd's engine, which wants the streams of a GPU: its nodes called one after the other."""
    order: list[Any] = []

    def visit(node: Any) -> None:
        if node is not None and node not in order:
            for following, _ in node.next_functions:
                visit(following)
            order.append(node)

    visit(root.grad_fn)
    given: dict[Any, dict[int, Tensor]] = {root.grad_fn: {0: torch.ones_like(root)}}
    leaves = {}
    for node in reversed(order):
        values = given.pop(node, {})
        if hasattr(node, "variable"):
            leaves |= {node.variable: values[0]} if values else {}
            continue
        call = node.apply if isinstance(node, torch.autograd.function.BackwardCFunction) else node
        with torch.no_grad():
            found = call(*(values.get(slot) for slot in range(len(node._input_metadata))))
        found = found if isinstance(found, tuple) else (found,)
        for (following, slot), value in zip(node.next_functions, found, strict=False):
            if following is not None and value is not None:
                slots, wanted = given.setdefault(following, {}), following._input_metadata[slot]
                value = value.sum_to_size(wanted.shape).to(wanted.dtype)
                slots[slot] = slots[slot] + value if slot in slots else value
    return leaves


def backward(loss: Tensor) -> None:
    for leaf, gradient in gradients(loss).items():
        assert leaf.device == gradient.device
        leaf.grad = gradient


def without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backward as above, and Puzzle-Mix without its two exact algorithms."""
    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(torch.autograd, "grad", lambda root, leaf: (gradients(root)[leaf],))
    monkeypatch.setattr(puzzlemix, "solve", lambda energy: torch.zeros_like(energy.unary[..., 0], dtype=torch.int64))
    plan = lambda visible, share: torch.zeros_like(visible.flatten(1), dtype=torch.int64)  # noqa: E731
    monkeypatch.setattr(puzzlemix, "transport_plan", plan)


MIXERS: dict[str, Callable[[], Mixer]] = {
    **{part.title: lambda part=part: fitted(part) for part in PARTS.values() if part.kind in ("mixer", "step")},
    "CutMix, elem": lambda: lumix.CutMix(mode="elem"),
    "Mixup, in place": lambda: lumix.Mixup(mode="elem", inplace=True),
    "Switch": lambda: lumix.Switch(mode="elem"),
    "Either": lambda: lumix.Either(lumix.Mixup(), lumix.FMix(max_soft=0.2)),
    "FMix, soft": lambda: lumix.FMix(max_soft=0.2),
}


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("seed", range(3))
def test_no_mixer_waits_or_mixes_devices(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, (images, labels), network = MIXERS[name](), images_and_labels(), on_gpu(Network())
    draws = mixer.draw(images.shape, stream(seed))
    without_engine(monkeypatch)
    batch = mixer.apply(images, labels, draws, network)
    assert {leaf.device.type for leaf in batch if isinstance(leaf, Tensor)} == {"cuda"}
    with lumix.hidden_mixing(network, batch):
        logits = network(batch.images)
    for rule in ("AreaRule()", "LUMixRule()", "LUMixRule(apply_to='both')"):
        lumix.MixLoss(named(rule), smoothing=0.1, eta=float(rule != "AreaRule()"))(logits, batch, stream(seed))


@pytest.mark.parametrize("name", sorted(MIXERS.keys() - {"Puzzle-Mix"}))
def test_no_mixer_makes_float64_where_there_is_none(name: str, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on MPS, which this torch cannot even fake: here `wide` takes CUDA for it."""
    for module in (random, paste, resizemix, saliencymix):
        narrow = lambda device: torch.float32 if device.type == "cuda" else torch.float64  # noqa: E731
        monkeypatch.setattr(module, "wide", narrow)
    (images, labels), network, mixer = images_and_labels(), on_gpu(Network()), MIXERS[name]()
    gpu.narrow = True
    batch = mixer.apply(images, labels, mixer.draw(images.shape, stream()), network)._replace(hidden=None)
    lumix.MixLoss(lumix.LUMixRule(), smoothing=0.1)(on_gpu(torch.randn(SIZE, CLASSES)), batch, stream())


WAITING = {"fixmatch", "pseudo_label", "samix", "attention on puzzlemix"}  # see above
RULES = [part.cls for part in PARTS.values() if part.kind == "rule"]
TERMS = [part.cls for part in PARTS.values() if part.kind == "term"]


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("rule", RULES)
def test_no_rule_and_no_term_waits(rule: Any, term: Any) -> None:
    images, labels = images_and_labels()
    batch = lumix.Switch(mode="elem")(images, labels, stream())
    logits, attention = on_gpu(torch.randn(SIZE, CLASSES)), on_gpu(torch.rand(SIZE, 16))
    first = () if term in (lumix.CrossEntropy, lumix.BinaryCrossEntropy) else (lumix.CrossEntropy(),)
    alone = term is lumix.RescaledBinaryCrossEntropy
    loss = on_gpu(lumix.MixLoss(rule(), terms=(term(),) if alone else (*first, term())))
    assert loss(logits.requires_grad_(), batch, stream(), attention).device.type == "cuda"


@pytest.mark.parametrize("make", [lumix.AutoMix, lumix.SAMix])
def test_no_learner_waits(make: Any) -> None:
    with unset_fake_temporarily():
        network = timm.create_model("resnet18", num_classes=CLASSES, channels=[4, 8, 8, 8], layers=[1, 1, 1, 1])
        learner = make(network)
    learner = on_gpu(learner)
    batch = learner.prepare(*images_and_labels(), stream())
    assert learner(batch).loss.device.type == "cuda"
    learner.after_update(0.5)


@pytest.mark.parametrize("name", sorted(RUNS.keys() - WAITING))
def test_no_update_waits(name: str, tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything between two looks at the loss: feed, mixing, forward, backward, clipping, optimizer, averages."""
    monkeypatch.setattr(loop, "seed_global_state", lambda device, seed: None)  # of the GPU that is not there
    monkeypatch.setattr(feeds, "step_generator", lambda *address: step_generator(*address[:4]))
    without_engine(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(mixed, "frozen_network", lambda setup: on_gpu(copy.deepcopy(frozen_network(setup))))
    run, process = RUNS[name].replace(precision="bfloat16"), Process(0, 1, torch.device("cuda"))
    gpu.settled = True
    training = loop.Training(run, 0, tmp_path, Execution(), Process.current("cpu"))
    training.process, training.feed = process, feeds.build_feed(run, 0, process, Execution())
    training.task, training.bad = on_gpu(training.task), on_gpu(training.bad)
    training.updater, training.state.statistics = build_updater(run, training.task), Statistics(process)
    gpu.settled = False
    batches = training.feed.train(0, 0)
    for _ in range(2):
        training.step(*next(batches))
    assert {value.device.type for value in training.task.state_dict().values()} == {"cuda"}


def test_no_semi_supervised_loss_waits() -> None:
    logits = on_gpu(torch.randn(SIZE, CLASSES))
    pseudo_labels(logits, 0.95)
    targets = guess_labels([logits, logits], 0.5)
    mix_targets(images_and_labels()[0], targets, 0.75, stream())
    assert (soft_cross_entropy(logits, targets) + squared_error(logits, targets)).device.type == "cuda"
    with unset_fake_temporarily():
        network = timm.create_model("resnet18", num_classes=CLASSES, channels=[4, 8, 8, 8], layers=[1, 1, 1, 1])
        learner = SelfTuning(network, lumix.Mixup(), lumix.Mixup(pairing="flip"), places=3, features=5)
    learner = on_gpu(learner)
    (images, labels), (others, _) = images_and_labels(), images_and_labels()
    batch = learner.prepare(Views((images, images), (others, others)), labels, stream())
    assert learner(batch).loss.device.type == "cuda"


def test_no_evaluation_waits_on_its_forward_path() -> None:
    (images, _), network = images_and_labels(), on_gpu(Network())
    shuffle_grid(images, on_gpu(torch.arange(16).expand(SIZE, 16)), 4, 4)
    ten_crop_logits(network, images, 8)
    masks = on_gpu(torch.zeros(SIZE, SIDE, SIDE, dtype=torch.int64))
    segmentation_loss(on_gpu(torch.randn(SIZE, CLASSES, SIDE, SIDE)), masks)
    with unset_fake_temporarily():
        deit: nn.Module = timm.create_model(
            "deit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=8, depth=1, num_heads=2
        )
    assert class_attention(on_gpu(deit), images).device.type == "cuda"
