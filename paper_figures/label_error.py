"""Figure 1 of the paper with numbers: how far are λ0, λs and λ from what one can see of the pasted object?

The shapes set has exact masks, so the truth is known: of all object pixels that are visible in a CutMix image, the
share that belongs to the pasted object. λs needs a network; a small one is trained here, on one thread, from fixed
seeds.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import style
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

import lumix
from lumix.functional import predicted_weight
from training.data.sets import ImageSet, normalise, shapes
from training.optim import Updater

TRAIN_IMAGES, TEST_IMAGES, EPOCHS, BATCH = 2000, 4000, 6, 50


@dataclass(frozen=True)
class Pairs:
    """N CutMix images whose two objects differ in class, with what each rule says of the pasted object, all [N]."""

    images: Tensor  # [N, 3, H, W] uint8
    boxes: Tensor  # [N, 4]
    truth: Tensor
    weights: dict[str, Tensor]  # "λ0", "λs", "λ"
    names: list[str]


def small_network(num_classes: int) -> nn.Module:
    """Three convolutions: enough for shapes, quick on one thread."""
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 24, 48, 64)):
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4, num_classes))


def train(data: ImageSet, seed: int = 0) -> nn.Module:
    """The small network after a few epochs of CutMix with ordinary labels, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # layers draw their initial weights from the global generator
        torch.manual_seed(seed)
        network = small_network(data.num_classes)
    mixer, loss_of = lumix.CutMix(alpha=1.0, prob=0.5), lumix.MixLoss()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    updater = Updater(optimizer)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=EPOCHS * (len(data) // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(data), generator=generator).split(BATCH):
            batch = mixer(normalise(data.images[rows], data.mean, data.std), data.labels[rows], generator)
            updater.update(lambda batch: loss_of(network(batch.images), batch, generator), batch)
            schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, data: ImageSet) -> float:
    """Top-1 in per cent on clean images."""
    return 100 * float((network(normalise(data.images, data.mean, data.std)).argmax(1) == data.labels).float().mean())


@torch.no_grad()
def mixed_pairs(network: nn.Module, data: ImageSet, seed: int = 1) -> Pairs:
    """CutMix every image with a partner of its own (mode "elem"); pairs of one class, or without any visible object
    pixel, have no share and are left out."""
    assert data.masks is not None
    generator = torch.Generator().manual_seed(seed)
    batch = lumix.CutMix(alpha=1.0, mode="elem")(data.images, data.labels, generator)
    shows_own = batch.own_mask().squeeze(1) > 0.5
    own = (data.masks.bool() & shows_own).sum((1, 2))
    pasted = (data.masks[batch.partner].bool() & ~shows_own).sum((1, 2))
    logits = network(normalise(batch.images, data.mean, data.std))
    own_weights = {
        "λ0": batch.own_weight,
        "λs": predicted_weight(logits, batch.labels, batch.partner_labels),
        "λ": lumix.LUMixRule()(logits, batch, generator),
    }
    kept = (own + pasted > 0) & (batch.labels != batch.partner_labels) & (batch.own_weight < 1)
    assert batch.box is not None
    return Pairs(
        images=batch.images[kept],
        boxes=batch.box[kept],
        truth=(pasted / (own + pasted).clamp(min=1))[kept],
        weights={name: (1 - weight)[kept] for name, weight in own_weights.items()},
        names=[
            f"{data.class_names[b]} pasted\non {data.class_names[a]}".replace("_", " ")
            for a, b in zip(batch.labels[kept], batch.partner_labels[kept], strict=True)
        ],
    )


def chosen(pairs: Pairs, count: int) -> list[int]:
    """Examples that span the error of λ0: its quantiles from the smallest to the largest, of boxes worth looking at."""
    error = (pairs.truth - pairs.weights["λ0"]).abs()
    sizes = pairs.weights["λ0"]
    usable = torch.nonzero((sizes > 0.12) & (sizes < 0.88)).squeeze(1)
    order = usable[error[usable].argsort(stable=True)]
    return [int(order[round(float(place))]) for place in np.linspace(0, len(order) - 1, count)]


def draw_example(axes: Axes, pairs: Pairs, index: int) -> None:
    """One mixed image, the box outlined, and the four numbers under it."""
    axes.imshow(pairs.images[index].permute(1, 2, 0).numpy(), interpolation="nearest")
    top, bottom, left, right = (int(side) for side in pairs.boxes[index])
    corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=1.6, linestyle="--"))
    numbers = [f"{name} = {float(weight[index]):.2f}" for name, weight in pairs.weights.items()]
    text = "\n".join([f"true = {float(pairs.truth[index]):.2f}", *numbers])
    axes.set_title(pairs.names[index], fontsize=9)
    axes.set_xlabel(text, fontsize=9, family="monospace")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def draw_errors(axes: Axes, pairs: Pairs) -> None:
    """Histogram of |true share − weight| for each rule, with its mean in the legend."""
    looks = {"λ0": (style.CUTMIX, "-"), "λs": (style.PREDICTED, ":"), "λ": (style.LUMIX, "--")}
    meaning = {"λ0": "pasted area, CutMix", "λs": "predicted", "λ": "LUMix: 0.5 λ0 + 0.4 λr + 0.1 λs"}
    bins: dict[str, Any] = {"bins": 40, "range": (0, 1), "histtype": "step", "linewidth": 2}
    for name, weight in pairs.weights.items():
        error = (pairs.truth - weight).abs()
        low, high = mean_interval(error)
        label = f"{name} ({meaning[name]}): mean error {float(error.mean()):.3f} [{low:.3f}, {high:.3f}]"
        colour, line = looks[name]
        axes.hist(error.numpy(), color=colour, linestyle=line, label=label, **bins)
    axes.set(xlabel="label error |true visible share − weight| of the pasted object", ylabel="images", xlim=(0, 1))
    axes.legend()


def mean_interval(error: Tensor) -> tuple[float, float]:
    """95 % interval of the mean error, by the normal law: there are thousands of pairs."""
    reach = 1.96 * float(error.std()) / len(error) ** 0.5
    return float(error.mean()) - reach, float(error.mean()) + reach


def label_error(train_images: int = TRAIN_IMAGES, test_images: int = TEST_IMAGES) -> Figure:
    """The whole figure: a row of examples above the histogram."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    try:
        network = train(shapes(train_images, seed=0))
        test = shapes(test_images, seed=1)
        top1, pairs = accuracy(network, test), mixed_pairs(network, test)
    finally:
        torch.set_num_threads(threads)
    figure = plt.figure(figsize=(11, 6.8))
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 1.05))
    upper, lower = (figure.add_subfigure(grid[row, 0]) for row in range(2))
    examples = chosen(pairs, 6)
    for axes, index in zip(upper.subplots(1, len(examples)), examples, strict=True):
        draw_example(axes, pairs, index)
    draw_errors(lower.subplots(), pairs)
    figure.suptitle(
        f"Weight of the pasted object in {len(pairs.truth)} CutMix images of shapes 16×16 (NOT ImageNet); "
        f"network: {top1:.1f} % top-1 on {test_images} clean images",
        fontsize=10,
    )
    return figure
