"""Puzzle-Mix against its plain reading in benchmarks/: energy, exact minima, transport, saliency, and the mixer."""

import itertools
import sys

import numpy as np
import puzzle_reference as reference
import pytest
import torch
import torch.nn.functional as F
from batches import stream
from torch import nn

from lumix import Kind
from lumix.mixers.puzzlemix import (
    IMAGENET_STD,
    Energy,
    PuzzleDraws,
    PuzzleMix,
    descend,
    input_saliency,
    mask_energy,
    saliency_share,
    solve,
    transport_plan,
    upsample,
)


def smooth(generator, *shape, coarse=4):
    """Random fields that vary slowly, as images do."""
    size, channels, side, _ = shape
    low = torch.rand(size, channels, max(side // coarse, 1), max(side // coarse, 1), generator=generator)
    return F.interpolate(low, size=side, mode="bilinear")


def puzzle_batch(size=6, side=32, channels=3, seed=0, spread=4.0):
    """Images in [0, 1], labels, partner and saliency whose largest values are about e^spread times the smallest."""
    generator = stream(seed)
    images = smooth(generator, size, channels, side, side)
    saliency = torch.exp(spread * smooth(generator, size, 1, side, side, coarse=2)[:, 0])
    return images, torch.arange(size) % 3, torch.randperm(size, generator=generator), saliency


def problem(size=6, grid=4, labels=3, seed=0, lam=0.4, spread=4.0) -> Energy:
    """A mask problem of images of 32 pixels."""
    images, _, partner, saliency = puzzle_batch(size, seed=seed, spread=spread)
    block = 32 // grid
    colours = F.avg_pool2d(images.double(), min(4, block))
    return mask_energy(saliency_share(saliency, block), colours, partner, lam, labels)


def random_problem(size=20, grid=2, labels=3, seed=0, largest=6) -> Energy:
    """Small whole numbers, hence many ties, and weights that no images have."""
    generator = stream(seed)

    def numbers(*shape):
        return torch.randint(largest, shape, generator=generator, dtype=torch.int32)

    pairs = numbers(size, grid - 1, grid), numbers(size, grid, grid - 1)
    return Energy(numbers(size, grid, grid, labels), *pairs)


def one(energy, index, times=1) -> Energy:
    return Energy(*(values[index : index + 1].expand(times, *values.shape[1:]) for values in energy))


def energy_of(energy, labels):
    """[B] int64, (L - 1)^2 times the energy of `labels` [B, n, n]."""
    unary = energy.unary.gather(-1, labels.unsqueeze(-1)).sum((1, 2, 3), dtype=torch.int64)
    pairs = (energy.down * labels.diff(dim=1).square()).sum((1, 2))
    pairs = pairs + (energy.right * labels.diff(dim=2).square()).sum((1, 2))
    return unary * (energy.unary.shape[-1] - 1) ** 2 + pairs


def minima_of(energy, index):
    """All labellings [k, n, n] of least energy of one image, by trying every one."""
    *_, grid, labels = energy.unary.shape
    every = torch.tensor(list(itertools.product(range(labels), repeat=grid**2))).view(-1, grid, grid)
    values = energy_of(one(energy, index, len(every)), every)
    return every[values == values.min()]


@pytest.mark.parametrize("labels", [2, 3, 5])
@pytest.mark.parametrize("grid", [2, 4, 8, 16])
def test_costs_are_those_of_the_plain_reading_to_the_last_unit(grid, labels):
    """Shares, colour breaks in both directions, their linear parts, the prior, truncation."""
    for channels, lam in ((3, 0.3), (1, 0.95), (2, 0.0)):
        images, _, partner, saliency = puzzle_batch(4, channels=channels, seed=grid)
        block = 32 // grid
        colours = F.avg_pool2d(images.double(), min(4, block))
        energy = mask_energy(saliency_share(saliency, block), colours, partner, lam, labels)
        plain = reference.saliency_shares(saliency, block)
        pixels = reference.block_means(images.double().numpy(), min(4, block))
        for i, j in enumerate(partner.tolist()):
            expected = reference.image_energy(plain[i], plain[j], pixels[i], pixels[j], lam, labels)
            for ours, theirs in zip(energy, expected, strict=True):
                assert np.array_equal(ours[i].numpy(), theirs)


def test_shares_sum_to_one_whatever_the_gradient():
    saliency = torch.rand(5, 8, 8, generator=stream())
    saliency[1], saliency[2], saliency[3, 0, 0], saliency[4] = 0, torch.nan, torch.inf, 1e-38
    share = saliency_share(saliency, 4)
    torch.testing.assert_close(share.sum((1, 2)), torch.ones(5, dtype=torch.float64))
    for flat in (1, 2, 4):
        torch.testing.assert_close(share[flat], torch.full((2, 2), 0.25, dtype=torch.float64))


def test_weights_are_never_negative_even_for_colours_out_of_range():
    """Erased areas filled with noise break the order of colours; a cut needs weights of at least 0."""
    colours = 20 * torch.randn(4, 3, 8, 8, generator=stream(), dtype=torch.float64)
    energy = mask_energy(torch.full((4, 4, 4), 1 / 16).double(), colours, torch.tensor([1, 2, 3, 0]), 0.5)
    assert (energy.down == 0).any()
    assert (energy.down >= 0).all()
    assert (energy.right >= 0).all()


@pytest.mark.parametrize("largest", [3, 40])
@pytest.mark.parametrize(("grid", "labels"), [(2, 2), (2, 3), (2, 4), (2, 6), (3, 2), (3, 3)])
def test_the_lowest_of_all_minima_is_found_and_enclosed(grid, labels, largest):
    """Against all labellings. Tied minima form a lattice; its lowest member has every block at its lowest."""
    energy = random_problem(12, grid, labels, seed=labels, largest=largest)
    zeros = torch.zeros(12, grid, grid, dtype=torch.int64)
    bounds = [
        (descend(energy, zeros, sweeps=n), descend(energy, zeros + labels - 1, highest=True, sweeps=n))
        for n in (0, 1, 3, 20)
    ]
    found, tied = solve(energy), 0
    for i in range(len(found)):
        minima = minima_of(energy, i)
        tied += len(minima) > 1
        assert torch.equal(found[i], minima.amin(0))
        for low, high in bounds:
            assert (low[i] <= minima.amin(0)).all()
            assert (minima.amax(0) <= high[i]).all()
    assert largest > 3 or tied > 0


def test_a_batch_too_large_for_32_bits_is_split():
    """Two images whose costs each reach half of a limit cannot share a graph under it."""
    energy = problem(6, 8, 3, seed=2)

    def too_large(limit):
        count = 0
        for i in range(6):
            try:
                solve(one(energy, i), limit)
            except ValueError:
                count += 1
        return count

    limit = next(2**exponent for exponent in range(24, 10, -1) if too_large(2**exponent // 2) >= 2)
    assert torch.equal(solve(energy, limit), solve(energy))
    with pytest.raises(ValueError, match="32 bits of scipy's maximum flow"):
        solve(energy, 10)


def test_missing_scipy_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match="cuts graphs with SciPy: pip install scipy"):
        solve(problem(2, 8))


def instance(size, side, seed, spread=4.0, levels=3):
    """A mask of `levels` shares and positive shares of saliency [B, n, n] float32."""
    generator = stream(seed)
    mask = torch.randint(levels, (size, side, side), generator=generator).float() / (levels - 1)
    if seed % 2:  # masks of real runs hang together
        mask = (smooth(generator, size, 1, side, side, coarse=2)[:, 0] * levels).floor().clamp(max=levels - 1)
        mask /= levels - 1
    saliency = torch.exp(spread * torch.rand(size, side, side, generator=generator))
    return mask, saliency / saliency.sum((1, 2), keepdim=True)


def published(mask, share, eps):
    """Source of each target [B, cells] by dense rounds, -1 where none won."""
    matrix = reference.transport_matrix(mask, share, eps)
    assert (matrix.sum(1) <= 1).all()
    return torch.where(matrix.sum(1) > 0, matrix.argmax(1), -1)


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.2, 0.8, 10.0])
@pytest.mark.parametrize("side", [2, 3, 4, 8, 16])
def test_plan_is_the_published_one_wherever_the_image_shows(side, eps):
    """Ties included: distances on a grid tie all the time, and shares of few sizes. With eps 0 all want one target."""
    for seed in range(8):
        mask, share = instance(4, side, seed, spread=(1.0, 4.0, 8.0)[seed % 3], levels=2 + seed % 2)
        if seed > 5:
            share = torch.randint(1, 4, share.shape, generator=stream(seed)).float() ** 3
            share /= share.sum((1, 2), keepdim=True)
        plan, expected = transport_plan(mask > 0, share, eps), published(mask, share, eps)
        visible = (mask > 0).flatten(1)
        assert torch.equal(plan[visible], expected[visible])
        assert (plan[~visible] == -1).all()
        for i in range(4):
            assert torch.equal(plan[i : i + 1], transport_plan(mask[i : i + 1] > 0, share[i : i + 1], eps))


def test_cells_without_saliency_stay_where_they_show():
    """The published rule leaves their places empty, which would be black patches in the mixed image."""
    share = torch.zeros(2, 4, 4)
    share[0, 0, 0] = 1.0
    visible = torch.ones(2, 4, 4, dtype=torch.bool)
    visible[:, 0, 0] = False
    plan = transport_plan(visible, share, 0.8)
    assert torch.equal(plan[1, 1:], torch.arange(1, 16))
    assert plan[0].tolist() == [-1, 0, *range(2, 16)]  # the one salient cell takes the next place
    assert (published(visible.float(), share, 0.8)[1, 1:] == -1).any()


class Net(nn.Module):
    """Everything that could leave a trace: batch statistics, dropout, weights, frozen weights."""

    def __init__(self, channels=3, classes=3):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Dropout())
        self.head = nn.Linear(8, classes)
        self.head.bias.requires_grad_(False)

    def forward(self, images):
        return self.head(self.features(images).square().mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_saliency_of_a_linear_network_is_known():
    """d cross entropy / d x = W^T (p - y); its root mean square over channels, not divided by the batch."""
    torch.manual_seed(0)
    linear = nn.Linear(3 * 4 * 4, 5)
    model = nn.Sequential(nn.Flatten(), linear)
    images, labels = torch.randn(6, 3, 4, 4, generator=stream()), torch.arange(6) % 5
    error = model(images).softmax(1) - F.one_hot(labels, 5)
    gradient = (error @ linear.weight).view(6, 3, 4, 4)
    with torch.no_grad():
        saliency = input_saliency(model, images, labels)
    torch.testing.assert_close(saliency, gradient.square().mean(1).sqrt().detach())
    assert saliency.dtype == torch.float32
    assert torch.equal(input_saliency(model.requires_grad_(False), images, labels), saliency)


def test_network_is_asked_in_eval_mode_and_left_as_it_was(net):
    """Every submodule's own mode, weights, statistics and gradients, also when the forward fails."""
    images, labels, _, _ = puzzle_batch(4, 8)
    net.train()
    net.features[1].eval()  # as one freezes batch statistics
    net.head.weight.grad = torch.full_like(net.head.weight, 7.0)
    modes, before = [module.training for module in net.modules()], state(net)
    seen = []
    hook = net.features[3].register_forward_hook(lambda module, _, __: seen.append(module.training))
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda _: pytest.fail("a weight gradient was computed"))
    input_saliency(net, images, labels)
    hook.remove()
    assert seen == [False]
    with pytest.raises(RuntimeError):
        input_saliency(net, images[:, :2], labels)
    assert [module.training for module in net.modules()] == modes
    assert (net.head.weight.grad == 7).all()
    assert all(p.grad is None for p in net.features.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not images.requires_grad


def test_saliency_inside_autocast_leaves_the_training_step_as_it_is(net):
    """Autocast keeps copies of the weights; the training step that follows must still find its way back to them."""
    images, labels, _, _ = puzzle_batch(4, 8)
    gradients = []
    net.eval()
    for asks in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            if asks:
                with torch.no_grad():
                    saliency = input_saliency(net, images, labels)
            F.cross_entropy(net(images), labels).backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.requires_grad])
    assert saliency.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_small_gradients_of_half_precision_are_not_lost():
    """With a mean over 2048 images these gradients would fall below the smallest number of float16."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).half()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1e-5, 2e-5, 3e-5, 4e-5], [0, 0, 0, 0]]))
    saliency = input_saliency(model, torch.zeros(2048, 1, 2, 2).half(), torch.zeros(2048, dtype=torch.int64))
    assert (saliency > 0).all()
    torch.testing.assert_close(saliency[0, 1, 1] / saliency[0, 0, 0], torch.tensor(4.0), rtol=0.05, atol=0)


@pytest.mark.parametrize("transport_size", [4, -1])
@pytest.mark.parametrize(("side", "grid"), [(32, 2), (32, 4), (32, 8), (32, 16), (64, 8), (8, 4)])
def test_mix_is_that_of_the_plain_reading(side, grid, transport_size):
    for channels in (1, 3):
        images, labels, partner, saliency = puzzle_batch(5, side, channels, seed=grid)
        std, draws = IMAGENET_STD if channels == 3 else (1.0,), PuzzleDraws(partner, 0.45, grid)
        batch = PuzzleMix(transport_size=transport_size).apply(images, labels, draws, saliency=saliency)
        mask = reference.batch_mask(images, partner, 0.45, grid, saliency, std)
        expected, weight = reference.batch_transport(images, partner, mask, saliency, 0.8, transport_size)
        assert torch.equal(batch.mask[:, 0], upsample(mask, side // grid))
        torch.testing.assert_close(batch.images, expected, rtol=0, atol=1.2e-7)
        torch.testing.assert_close(batch.own_weight, weight)
        still = PuzzleMix(transport=False).apply(images, labels, draws, saliency=saliency)
        assert torch.equal(still.mask, batch.mask)
        torch.testing.assert_close(still.images, batch.mask * images + (1 - batch.mask) * images[partner])
        assert (batch.moved, still.moved) == (True, False)


def test_the_batch_says_what_was_done(net, global_state_untouched):
    images, labels, _, _ = puzzle_batch(7, 16)
    before, drawn = state(net), []
    for seed in range(30):
        drawn.append(PuzzleMix().draw(images.shape, stream(seed)).grid)
        batch = PuzzleMix()(images, labels, stream(seed), net)
        assert batch.is_kind(Kind.MASK).all()
        assert (batch.mask.shape, batch.mask.dtype) == ((7, 1, 16, 16), torch.float32)
        torch.testing.assert_close(batch.own_weight, batch.mask.mean((1, 2, 3)))
        assert (batch.mask * 2).frac().abs().max() < 1e-6
    assert {grid: drawn.count(grid) > 4 for grid in set(drawn)} == {2: True, 4: True, 8: True}
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("side", "grids"),
    [(8, (2, 4)), (16, (2, 4, 8)), (32, (2, 4, 8, 16)), (224, (2, 4, 8)), (28, (2, 4)), (33, (3, 11))],
)
def test_grids_of_usual_resolutions(side, grids):
    assert PuzzleMix().suitable_grids(side)[:3] == grids[:3]


def test_a_network_without_gradient_still_mixes():
    """Dead units and overflows of half precision happen; shares are then equal. So does a batch of one image."""
    for size, value in ((4, 0.0), (1, torch.nan), (2, torch.inf)):
        images, labels, partner, _ = puzzle_batch(size, 16, size)
        saliency = torch.full((size, 16, 16), value)
        batch = PuzzleMix().apply(images, labels, PuzzleDraws(partner, 0.3, 4), saliency=saliency)
        assert batch.images.isfinite().all()
        assert (batch.own_weight >= 0).all()


def given(size=2, side=8, **options):
    images, labels, partner, saliency = puzzle_batch(size, side)
    return PuzzleMix(**options).apply(images, labels, PuzzleDraws(partner, 0.5, 2), saliency=saliency)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PuzzleMix().draw((2, 3, 16, 8), stream()), "needs square images, not 16 x 8: crop them"),
        (lambda: PuzzleMix().draw((2, 3, 227, 227), stream()), "no grid suits 227 pixels: .* resize or crop to 224"),
        (
            lambda: PuzzleMix()(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2).long(), stream()),
            "normalised images that the network takes, not torch.uint8",
        ),
        (lambda: torch.inference_mode()(input_saliency)(Net(), *puzzle_batch(2, 8)[:2]), "takes a gradient, which"),
        (
            lambda: PuzzleMix()(*puzzle_batch(2, 8)[:2], stream()),
            "looks at the images through the network: pass model=",
        ),
        (
            lambda: PuzzleMix()(puzzle_batch(2, 8)[0], torch.tensor([0, 3]), stream(), Net()),
            r"labels 0 .. 3 do not fit the network's output \[2, 3\]",
        ),
        (lambda: given(std=(0.5,)), "std has 1 values for images of 3 channels"),
        (lambda: given(side=32, transport_size=3), "transport_size 3 does not divide blocks of 16 pixels"),
        (lambda: PuzzleMix(transport_size=0), "transport_size must be a number of pixels or -1"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
