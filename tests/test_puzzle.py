"""Puzzle-Mix as a mixer: saliency without a trace in the network, the mix against the plain reading, its record."""

import pytest
import torch
import torch.nn.functional as F
from batches import stream
from puzzle_cases import puzzle_batch, reference
from torch import nn

from lumix import Kind
from lumix.mixers.puzzle import IMAGENET_STD, PuzzleDraws, PuzzleMix, input_saliency, upsample


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


# ------------------------------------------------------------------------------------------------- saliency


def test_saliency_of_a_linear_network_is_known():
    """d cross entropy / d x = W^T (p - y); its root mean square over channels, not divided by the batch."""
    torch.manual_seed(0)
    linear = nn.Linear(3 * 4 * 4, 5)
    model = nn.Sequential(nn.Flatten(), linear)
    images, labels = torch.randn(6, 3, 4, 4, generator=stream()), torch.arange(6) % 5
    error = model(images).softmax(1) - F.one_hot(labels, 5)
    gradient = (error @ linear.weight).view(6, 3, 4, 4)
    saliency = input_saliency(model, images, labels)
    torch.testing.assert_close(saliency, gradient.square().mean(1).sqrt().detach())
    assert saliency.dtype == torch.float32
    assert not saliency.requires_grad


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


def test_saliency_inside_no_grad_and_with_frozen_weights(net):
    images, labels, _, _ = puzzle_batch(4, 8)
    expected = input_saliency(net, images, labels)
    with torch.no_grad():
        assert torch.equal(input_saliency(net, images, labels), expected)
    net.requires_grad_(False)
    assert torch.equal(input_saliency(net, images, labels), expected)
    assert (expected > 0).any()


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


def test_distributed_wrapper_is_taken_off(net, tmp_path):
    images, labels, _, _ = puzzle_batch(4, 8)
    expected = input_saliency(net, images, labels)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(net)
        hook = wrapped.register_forward_hook(lambda *_: pytest.fail("the wrapper would wait for the other processes"))
        assert torch.equal(input_saliency(wrapped, images, labels), expected)
        hook.remove()
        F.cross_entropy(wrapped(images), labels).backward()  # the reducer was not armed in vain
        assert net.head.weight.grad is not None
    finally:
        torch.distributed.destroy_process_group()


# ------------------------------------------------------------------------------------------------- the mix


@pytest.mark.parametrize("transport_size", [4, -1])
@pytest.mark.parametrize(("side", "grid"), [(32, 2), (32, 4), (32, 8), (32, 16), (64, 8), (8, 4)])
def test_mix_is_that_of_the_plain_reading(side, grid, transport_size):
    for channels in (1, 3):
        images, labels, partner, saliency = puzzle_batch(5, side, channels, seed=grid)
        std = IMAGENET_STD if channels == 3 else (1.0,)
        lam = 0.45
        mixer = PuzzleMix(transport_size=transport_size)
        batch = mixer.apply(images, labels, PuzzleDraws(partner, lam, grid), saliency=saliency)
        mask = reference.batch_mask(images, partner, lam, grid, saliency, std)
        expected, weight = reference.batch_transport(images, partner, mask, saliency, 0.8, transport_size)
        assert torch.equal(batch.mask[:, 0], upsample(mask, side // grid))
        assert torch.equal(batch.images, expected)
        torch.testing.assert_close(batch.own_weight, weight)
        still = PuzzleMix(transport=False).apply(images, labels, PuzzleDraws(partner, lam, grid), saliency=saliency)
        assert torch.equal(still.mask, batch.mask)
        torch.testing.assert_close(still.images, batch.mask * images + (1 - batch.mask) * images[partner])
        assert (batch.moved, still.moved) == (True, False)


def test_masks_of_real_gradients_keep_what_each_image_is_seen_by(net):
    """The mean saliency kept by own and partner exceeds what random masks of the same shares would keep."""
    images, labels, partner, _ = puzzle_batch(32, 32)
    saliency = input_saliency(net, images, labels)
    batch = PuzzleMix(transport=False).apply(images, labels, PuzzleDraws(partner, 0.5, 8), saliency=saliency)
    share = saliency / saliency.sum((1, 2), keepdim=True)
    mask = batch.mask[:, 0]
    kept = (mask * share + (1 - mask) * share[partner]).sum((1, 2)).mean()
    assert kept > 1.02  # a random mask keeps m + (1 - m) = 1


@pytest.mark.parametrize("num_labels", [2, 3, 5])
def test_record_says_what_was_done(net, num_labels):
    images, labels, _, _ = puzzle_batch(7)
    before = images.clone(), labels.clone(), state(net)
    for seed in range(4):
        batch = PuzzleMix(num_labels=num_labels)(images, labels, stream(seed), net)
        assert batch.is_kind(Kind.MASK).all()
        assert batch.kind.dtype == torch.uint8
        assert batch.moved
        assert batch.box is None
        assert batch.mask.shape == (7, 1, 32, 32)
        assert (batch.mask.dtype, batch.own_weight.dtype) == (torch.float32, torch.float32)
        torch.testing.assert_close(batch.own_weight, batch.mask.mean((1, 2, 3)))
        assert (batch.mask * (num_labels - 1)).frac().abs().max() < 1e-6
        assert torch.equal(batch.partner_labels, labels[batch.partner])
        assert torch.equal(batch.partner.sort().values, torch.arange(7))
        assert not batch.images.requires_grad
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert all(torch.equal(before[2][name], value) for name, value in net.state_dict().items())


def test_every_pixel_comes_from_the_two_images_of_the_pair(net):
    """Where the mask is 1 or 0, in float32 and without blending: moved, but not changed."""
    images, labels, _, _ = puzzle_batch(6)
    images = images + torch.arange(6).view(-1, 1, 1, 1) * 10
    for seed in range(4):
        batch = PuzzleMix()(images, labels, stream(seed), net)
        source = (batch.images / 10).floor()
        own, other = torch.arange(6).view(-1, 1, 1, 1), batch.partner.view(-1, 1, 1, 1)
        assert torch.equal(torch.where(batch.mask == 1, source, own), own.expand_as(source).float())
        assert torch.equal(torch.where(batch.mask == 0, source, other), other.expand_as(source).float())


def test_equal_shares_are_mixup():
    """Flat saliency and colour with lam 1/2: every block is half of each, and nothing moves."""
    images, labels, partner, _ = puzzle_batch(4)
    batch = PuzzleMix(gamma=0.0).apply(images, labels, PuzzleDraws(partner, 0.5, 4), saliency=torch.ones(4, 32, 32))
    assert (batch.mask == 0.5).all()
    torch.testing.assert_close(batch.images, (images + images[partner]) / 2)


@pytest.mark.parametrize("solver", ["maxflow", "icm", "gco"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_solver_serves_the_mixer_and_shares_follow_the_draw(net, solver):
    if solver == "gco":
        pytest.importorskip("gco")
    images, labels, partner, saliency = puzzle_batch(16, 16, spread=1.0)
    mixer = PuzzleMix(solver=solver)
    shares = [
        mixer.apply(images, labels, PuzzleDraws(partner, lam, 4), saliency=saliency).own_weight.mean()
        for lam in (0.05, 0.35, 0.65, 0.95)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert shares[3] > 0.8


def test_std_scales_colours_and_the_mean_cancels():
    images, labels, partner, saliency = puzzle_batch(8)
    std = torch.tensor([0.2, 0.25, 0.3])
    draws = PuzzleDraws(partner, 0.4, 8)
    plain = PuzzleMix(std=(1.0, 1.0, 1.0), gamma=0.9).apply(images, labels, draws, saliency=saliency)
    normalised = (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / std.view(3, 1, 1)
    mixer = PuzzleMix(std=tuple(std.tolist()), gamma=0.9)
    assert torch.equal(mixer.apply(normalised, labels, draws, saliency=saliency).mask, plain.mask)
    without = PuzzleMix(gamma=0.0).apply(images, labels, draws, saliency=saliency)
    assert not torch.equal(plain.mask, without.mask)


# ------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize(
    ("side", "grids"), [(8, (2, 4)), (16, (2, 4, 8)), (32, (2, 4, 8, 16)), (64, (2, 4, 8, 16)), (224, (2, 4, 8))]
)
def test_default_grids_of_usual_resolutions(side, grids):
    assert PuzzleMix().suitable_grids(side) == grids


def test_grids_that_do_not_suit_are_refused():
    assert PuzzleMix(grids=(7,), neighbours=2).suitable_grids(28) == (7,)
    assert PuzzleMix(neighbours=2).suitable_grids(28) == (2,)
    for grids, side, remedy in (((2, 3), 32, r"\(2, 4, 8, 16\)"), ((8,), 8, r"\(2, 4\)")):
        with pytest.raises(ValueError, match=f"do not suit {side} pixels: blocks must tile .* choose among {remedy}"):
            PuzzleMix(grids=grids).suitable_grids(side)
    with pytest.raises(ValueError, match=r"no grid suits 227 pixels: .* resize or crop to 224"):
        PuzzleMix().suitable_grids(227)


def test_all_grids_are_drawn_and_the_generator_decides_all(net, global_state_untouched):
    images, labels, _, _ = puzzle_batch(4, 16)
    drawn, results = [], []
    for seed in range(30):
        drawn.append(PuzzleMix().draw(images.shape, stream(seed)).grid)
        batch, again = (PuzzleMix()(images, labels, stream(seed), net) for _ in range(2))
        assert torch.equal(batch.images, again.images)
        assert torch.equal(batch.mask, again.mask)
        results.append(batch.images)
    assert {grid: drawn.count(grid) > 4 for grid in set(drawn)} == {2: True, 4: True, 8: True}
    assert not torch.equal(results[0], results[1])


def test_a_given_mask_and_given_saliency_need_no_network():
    """A mask alone where nothing moves; with transport the cells of a given saliency move to it."""
    images, labels, partner, saliency = puzzle_batch(4)
    draws = PuzzleDraws(partner, 0.5, 4)
    mask = torch.rand(4, 4, 4, generator=stream()).round()
    still = PuzzleMix(transport=False).apply(images, labels, draws, mask=mask)
    pixels = upsample(mask, 8).unsqueeze(1)
    assert torch.equal(still.images, torch.where(pixels == 1, images, images[partner]))
    torch.testing.assert_close(still.own_weight, mask.mean((1, 2)))
    moved = PuzzleMix().apply(images, labels, draws, saliency=saliency, mask=mask)
    expected, _ = reference.batch_transport(images, partner, mask, saliency, 0.8, -1)
    assert torch.equal(moved.images, expected)
    with pytest.raises(ValueError, match="pass model="):
        PuzzleMix().apply(images, labels, draws, mask=mask)


def test_batches_are_mixed_with_probability_prob(net):
    images, labels, _, _ = puzzle_batch(4, 8)
    never = PuzzleMix(prob=0.0)(images, labels, stream(), net)
    assert torch.equal(never.images, images)
    assert never.images.data_ptr() != images.data_ptr()
    assert never.is_kind(Kind.NONE).all()
    assert (never.own_weight == 1).all()
    mixed = 0
    for seed in range(60):
        batch, always = (PuzzleMix(prob=p)(images, labels, stream(seed), net) for p in (0.3, 1.0))
        mixed += int(batch.is_kind(Kind.MASK).all())
        assert torch.equal(batch.images, always.images if batch.is_kind(Kind.MASK).all() else images)
    assert 8 <= mixed <= 28


def test_pairing_by_flip(net):
    images, labels, _, _ = puzzle_batch(4, 8)
    assert PuzzleMix(pairing="flip")(images, labels, stream(), net).partner.tolist() == [3, 2, 1, 0]
    with pytest.raises(ValueError, match="even batch, not 3 images"):
        PuzzleMix(pairing="flip")(images[:3], labels[:3], stream(), net)


# ------------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transport", [True, False])
def test_dtype_and_layout_are_kept(dtype, layout, transport):
    images, labels, partner, saliency = puzzle_batch(5)
    images = images.to(dtype).contiguous(memory_format=layout)
    mixer = PuzzleMix(transport=transport, transport_size=4)
    batch = mixer.apply(images, labels, PuzzleDraws(partner, 0.5, 4), saliency=saliency)
    assert batch.images.dtype == dtype
    assert batch.images.is_contiguous(memory_format=layout)
    full = mixer.apply(images.float(), labels, PuzzleDraws(partner, 0.5, 4), saliency=saliency)
    assert torch.equal(full.mask, batch.mask)
    torch.testing.assert_close(batch.images.float(), full.images.to(dtype).float())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_any_batch_size_and_number_of_channels(size, channels):
    torch.manual_seed(0)
    images, labels, _, _ = puzzle_batch(size, 16, channels)
    batch = PuzzleMix()(images, labels, stream(), Net(channels))
    assert batch.images.shape == images.shape
    assert batch.images.isfinite().all()
    if size == 1:
        assert batch.partner.tolist() == [0]


def test_a_network_without_gradient_still_mixes():
    """Dead units and overflows of half precision happen; shares are then equal."""
    images, labels, partner, _ = puzzle_batch(4, 16)
    for value in (0.0, torch.nan, torch.inf):
        batch = PuzzleMix().apply(images, labels, PuzzleDraws(partner, 0.3, 4), saliency=torch.full((4, 16, 16), value))
        assert batch.images.isfinite().all()
        assert (batch.own_weight >= 0).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 16, 8), "needs square images, not 16 x 8: crop them"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "normalised images that the network takes, not torch.uint8"),
        (
            torch.zeros(3, 16, 16),
            r"PuzzleMix mixes images \[B, C, H, W\], not a batch of shape \[3, 16, 16\]: Mixup and CutMix",
        ),
        (torch.zeros(3, 3, 16, 16), r"labels must be \[B\] with B = 3 images"),
    ],
)
def test_unusable_images_are_refused(net, images, message):
    with pytest.raises(ValueError, match=message):
        PuzzleMix()(images, torch.zeros(2, dtype=torch.int64), stream(), net)


def test_a_model_is_needed():
    with pytest.raises(ValueError, match="looks at the images through the network: pass model="):
        PuzzleMix()(*puzzle_batch(2, 8)[:2], stream())


def test_std_must_fit_the_channels(net):
    with pytest.raises(ValueError, match="std has 1 values for images of 3 channels"):
        PuzzleMix(std=(0.5,))(*puzzle_batch(2, 8)[:2], stream(), net)


def test_transport_cells_must_divide_blocks():
    images, labels, partner, saliency = puzzle_batch(2)
    with pytest.raises(ValueError, match="transport_size 3 does not divide blocks of 16 pixels"):
        PuzzleMix(transport_size=3).apply(images, labels, PuzzleDraws(partner, 0.5, 2), saliency=saliency)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "alpha must be above 0, not 0"),
        ({"num_labels": 1}, "num_labels must be at least 2, not 1"),
        ({"beta": -1.0}, "beta must be at least 0, not -1.0"),
        ({"gamma": float("nan")}, "gamma must be a finite number, not nan"),
        ({"eta": -0.1}, "eta must be at least 0, not -0.1"),
        ({"neighbours": 0}, "neighbours must be above 0, not 0"),
        ({"grids": ()}, "grids must be a tuple of numbers"),
        ({"grids": (1, 2)}, r"grids\[0\] must be at least 2, not 1"),
        ({"transport_eps": 0.0}, "transport_eps must be above 0, not 0.0"),
        ({"transport_size": 0}, "transport_size must be a number of pixels or -1"),
        ({"solver": "swap"}, "solver must be one of maxflow, icm, gco, not 'swap'"),
        ({"pairing": "roll"}, "pairing must be one of flip, permutation, not 'roll'"),
        ({"prob": 1.5}, "prob must lie between 0 and 1, not 1.5"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PuzzleMix(**options)
