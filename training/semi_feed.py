"""SemiFeed: labelled and unlabelled images of a set in memory, in the views that a semi-supervised task trains on.

A weak view is flipped and cropped as `Data` says. A strong one is that, then RandAugment in timm's notation on the
device, then cutout: a grey square at a random place. On grey images RandAugment works on three equal channels.
"""

import torch
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor

from lumix.registry import part_of
from lumix.semi.views import Views
from training.config import Run
from training.data import augment, load, normalise
from training.device_augment import BatchRandAugment
from training.process import Process
from training.resident_feed import Batches, ResidentFeed
from training.rng import endless_batches, step_generator

BICUBIC = 3  # Pillow's number, as timm's parameters have it
TRANSLATION = 0.3  # of the image's side, at full strength, as FixMatch has it; timm's own is 0.45


class SemiFeed(ResidentFeed):
    """`Data.labels` images with their labels, and all training images without.

    Both are passes without end, each pass in an order of its own. `train` gives (`Views`, labels [B]); the labelled
    images of an update, and their first view, are those that a run without unlabelled images gets.
    """

    def __init__(self, run: Run, seed: int, process: Process) -> None:
        super().__init__(run, seed, process)
        part = part_of(run.task)
        self.kinds = part.labelled, part.unlabelled
        self.ratio = getattr(run.task, "ratio", 1)  # unlabelled images in a batch for each labelled one
        self.unlabelled: Tensor = load(run.data)[0].images.to(process.device)
        self.grey = tuple(round(255 * mean) for mean in self.mean)
        self.rand_augment = _rand_augment(run.data.strong, self.grey) if run.data.strong else None

    def train(self, epoch: int, start: int) -> Batches:
        steps = self.steps(epoch, start)
        size, n = self.ratio * self.run.batch_size, len(self.unlabelled)
        others = self.share(endless_batches(n, size, self.seed, steps.start, "unlabelled"))
        for step, chosen, unlabelled in zip(steps, self.rows(epoch, start), others, strict=False):
            views = Views(
                self._views(self.train_set.images[chosen], self.kinds[0], step, "augment"),
                self._views(self.unlabelled[unlabelled], self.kinds[1], step, "augment unlabelled"),
            )
            yield views, self.train_set.labels[chosen]

    def _views(self, images: Tensor, kinds: tuple[str, ...], step: int, stream: str) -> tuple[Tensor, ...]:
        """The first view by the stream itself, the others by streams of their own."""
        streams = [stream, *(f"{stream} {number}" for number in range(1, len(kinds)))]
        makers = {"weak": self.weak, "strong": self.strong}
        return tuple(makers[kind](images, step, name) for kind, name in zip(kinds, streams, strict=True))

    def strong(self, images: Tensor, step: int, stream: str) -> Tensor:
        """Images uint8 in a strong view, normalised; by the stream and, for small draws on the CPU, a second one."""
        data, rank, device = self.run.data, self.process.rank, self.process.device
        images = augment(images, data, step_generator(self.seed, rank, step, stream, device))
        generator = step_generator(self.seed, rank, step, f"{stream} strong")
        if self.rand_augment:
            channels = images.shape[1]
            images = self.rand_augment(images.expand(-1, 3, -1, -1).clone(), generator)[:, :channels]
        if data.cutout:
            images = cutout(images, data.cutout, self.grey, generator)
        return normalise(images, self.mean, self.std)


def _rand_augment(notation: str, grey: tuple[int, ...]) -> BatchRandAugment:
    fill = grey * (3 // len(grey))
    options = {"translate_pct": TRANSLATION, "img_mean": fill, "interpolation": BICUBIC}
    return BatchRandAugment.like(rand_augment_transform(notation, options))


def cutout(images: Tensor, largest: float, fill: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Images uint8 [B, C, H, W] with a square of colour `fill` [C] each, in new memory.

    Its centre is uniform over the image and its side over [0, largest W]; what lies outside the image is cut off.

    Args:
        generator: on the CPU.
    """
    batch, _, height, width = images.shape
    draws = torch.rand(3, batch, 1, generator=generator).to(images.device)
    half = draws[0] * largest * width / 2
    rows, columns = (torch.arange(side, device=images.device) + 0.5 for side in (height, width))
    hit_rows = (rows - draws[1] * height).abs() < half
    hit_columns = (columns - draws[2] * width).abs() < half
    hit = (hit_rows.unsqueeze(2) & hit_columns.unsqueeze(1)).unsqueeze(1)
    return images.where(~hit, torch.tensor(fill, dtype=images.dtype, device=images.device).view(1, -1, 1, 1))
