"""What masks show: those that AutoMix and SAMix learn beside CutMix's, Puzzle-Mix's and the true objects of `shapes`.

The scenes have exact masks, so it can be counted how much of both objects is to be seen in a mixture, a number that
none of the papers has. The networks are trained here, on one thread, from fixed seeds.
"""

import matplotlib.pyplot as plt
import style
import timm
import torch
from label_error import mean_interval
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import lumix
from training.data.sets import ImageSet, normalise, shapes

TRAIN_IMAGES, TEST_IMAGES, EPOCHS, BATCH, SHOWN = 2000, 1000, 8, 50, 5
HALF = 1e6  # alpha of a Beta that gives 1/2
COLOURS = {
    "CutMix": style.RIVALS[1],
    "Puzzle-Mix": style.RIVALS[4],
    "AutoMix": style.RIVALS[2],
    "SAMix": style.RIVALS[3],
}


def train(data: ImageSet, kind: type[lumix.AutoMix], seed: int = 0) -> lumix.AutoMix:
    """A small ResNet after a few epochs of AutoMix or SAMix, with masks of 4x4 cells."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # layers draw their initial weights from the global generator
        torch.manual_seed(seed)
        network = timm.create_model("resnet18", num_classes=data.num_classes, channels=[16, 24, 32, 48], layers=[1] * 4)
        learner = kind(network, stage=1)
    total = EPOCHS * (len(data) // BATCH)
    optimizer = torch.optim.SGD(learner.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    for step in range(total):
        rows = torch.randint(len(data), (BATCH,), generator=generator)
        images = normalise(data.images[rows], data.mean, data.std)
        learner(learner.prepare(images, data.labels[rows], generator)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        learner.after_update((step + 1) / total)
    return learner.eval()


@torch.no_grad()
def own_masks(learners: dict[str, lumix.AutoMix], data: ImageSet) -> tuple[dict[str, Tensor], Tensor]:
    """Method -> the own image's share [N, H, W] of pairs with label weight 1/2, and the partners [N] of all of them.

    Puzzle-Mix looks through the network of the first learner, and moves nothing.
    """
    images, labels = normalise(data.images, data.mean, data.std), data.labels
    puzzle = lumix.PuzzleMix(alpha=HALF, transport=False)
    mixed = puzzle(images, labels, torch.Generator().manual_seed(1), next(iter(learners.values())).network)
    boxes = lumix.CutMix(alpha=HALF, mode="elem")(images, labels, torch.Generator().manual_seed(1))
    assert mixed.mask is not None
    found = {"CutMix": boxes.own_mask().squeeze(1).float(), "Puzzle-Mix": mixed.mask.squeeze(1).float()}
    for name, learner in learners.items():
        mask = learner.mix(images, labels, mixed.partner, torch.full((len(images),), 0.5)).mask
        assert mask is not None
        found[name] = mask.squeeze(1)
    return found, mixed.partner


def seen(own_mask: Tensor, objects: Tensor, partner: Tensor) -> Tensor:
    """Share [N] of both objects' pixels that masks [N, H, W] leave to be seen; `objects` are [N, H, W] bool."""
    own, other = objects.float(), objects[partner].float()
    shown = (own_mask * own + (1 - own_mask) * other).sum((1, 2))
    return shown / (own + other).sum((1, 2)).clamp(min=1)


def draw_masks(grid: list[list[Axes]], data: ImageSet, masks: dict[str, Tensor], partner: Tensor) -> None:
    """A line for each of the first pairs: both images, then each mask with the outlines of both objects."""
    assert data.masks is not None
    for line, axes in enumerate(grid):
        pair = (line, int(partner[line]))
        for place, (title, index) in enumerate(zip(("own image", "partner"), pair, strict=True)):
            axes[place].imshow(data.images[index].permute(1, 2, 0).numpy(), interpolation="nearest")
            if line == 0:
                axes[place].set_title(title, fontsize=10)
        for place, (name, mask) in enumerate(masks.items(), 2):
            axes[place].imshow(mask[line].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            for index, colour in zip(pair, (style.CUTMIX, style.LUMIX), strict=True):
                axes[place].contour(data.masks[index].numpy(), levels=[0.5], colors=[colour], linewidths=1.4)
            if line == 0:
                axes[place].set_title(name, fontsize=10)
        for one in axes:
            one.set(xticks=[], yticks=[])
            one.grid(visible=False)


def draw_shares(axes: Axes, found: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
    """How much of both objects shows, a line for each method with its 95 % interval over pairs."""
    for y, (name, share) in enumerate(found.items()):
        mean, (low, high) = float(share.mean()), mean_interval(share)
        axes.plot([low, high], [y, y], color=COLOURS[name], linewidth=2)
        axes.plot(mean, y, "o", color=COLOURS[name])
        axes.annotate(f"{mean:.3f} [{low:.3f}, {high:.3f}]", (mean, y), (0, 7), textcoords="offset points", fontsize=8)
    axes.axvline(0.5, color="black", linewidth=1)
    contrast = {name: float(mask.std(dim=(1, 2)).mean()) for name, mask in masks.items()}
    axes.set_yticks(range(len(found)), [f"{name}, contrast {contrast[name]:.3f}" for name in found])
    axes.set(ylim=(len(found) - 0.5, -0.7), xlabel="share of both objects that is to be seen, at a label weight of 1/2")
    axes.grid(axis="y", visible=False)


def learned_masks(train_images: int = TRAIN_IMAGES, test_images: int = TEST_IMAGES) -> Figure:
    """The whole figure: a sheet of masks above the shares."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    try:
        data, test = shapes(train_images, seed=0), shapes(test_images, seed=1)
        learners = {kind.__name__: train(data, kind) for kind in (lumix.AutoMix, lumix.SAMix)}
        masks, partner = own_masks(learners, test)
    finally:
        torch.set_num_threads(threads)
    assert test.masks is not None
    figure = plt.figure(figsize=(8.5, 10))
    upper, lower = figure.subfigures(2, 1, height_ratios=(3, 1))
    draw_masks(upper.subplots(SHOWN, 2 + len(masks)).tolist(), test, masks, partner)
    found = {name: seen(mask, test.masks.bool(), partner) for name, mask in masks.items()}
    draw_shares(lower.subplots(), found, masks)
    figure.suptitle(
        f"Masks (white: own image) of scenes of shapes 16×16 (NOT ImageNet), objects outlined: own blue, partner red.\n"
        f"Below: {len(partner)} pairs with 95 % intervals over pairs, one training each; contrast: mean standard "
        "deviation within a mask",
        fontsize=10,
    )
    return figure
