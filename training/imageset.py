"""ImageSet: a labelled set of small images that stays in memory as one uint8 tensor."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import masks_to_boxes


@dataclass(frozen=True)
class ImageSet:
    """N labelled images of one size. Sets are cached and shared: do not write into the tensors.

    Attributes:
        images: [N, C, H, W] uint8.
        labels: [N] int64 in [0, num_classes).
        num_classes: number of classes of the set, those absent from this part included.
        mean, std: per channel, of images scaled to [0, 1].
        masks: [N, H, W] uint8, 1 on the object, or None.
        boxes: [N, 4] int64, half-open (top, bottom, left, right) around the object, or None.
        class_names: one per class; () where the classes have no names.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    masks: Tensor | None = None
    boxes: Tensor | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.images.ndim != 4 or self.images.dtype != torch.uint8 or len(self.images) != n:
            raise ValueError(f"images must be uint8 [{n}, C, H, W], not {_describe(self.images)}")
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise ValueError(f"labels must be int64 [N], not {_describe(self.labels)}")
        wrong = (self.labels < 0) | (self.labels >= self.num_classes)
        if bool(wrong.any()):
            raise ValueError(f"label {int(self.labels[wrong][0])} is outside the {self.num_classes} classes of the set")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> "ImageSet":
        """Some of the images, by slice (a view) or index tensor [M] int64 (a copy)."""
        if isinstance(index, int):
            raise TypeError(f"index an ImageSet with a slice or a tensor, not {index}: use [{index}:{index + 1}]")
        return self._each(lambda part: part[index])

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set with every tensor on `device`."""
        return self._each(lambda part: part.to(device))

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of labels and pixels in their order: which images these are."""
        content = self.labels.cpu().numpy().tobytes() + self.images.cpu().numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ImageSet":
        parts = {name: getattr(self, name) for name in ("images", "labels", "masks", "boxes")}
        changed: dict[str, Any] = {name: None if part is None else change(part) for name, part in parts.items()}
        return replace(self, **changed)

    def enlarged(self, factor: int) -> "ImageSet":
        """Every pixel repeated to a square of `factor` x `factor`: larger, with no value invented."""
        return replace(
            self,
            images=self.images.repeat_interleave(factor, 2).repeat_interleave(factor, 3),
            masks=None if self.masks is None else self.masks.repeat_interleave(factor, 1).repeat_interleave(factor, 2),
            boxes=None if self.boxes is None else self.boxes * factor,
        )

    def reduced(self, factor: int) -> "ImageSet":
        """Every square of `factor` x `factor` pixels as its mean, rounded; for sets without masks and boxes."""
        if self.masks is not None or self.boxes is not None:
            raise ValueError("images with masks or boxes cannot be reduced: ask for their own size or a multiple")
        means = F.avg_pool2d(self.images.float(), factor).round()
        return replace(self, images=means.to(torch.uint8))


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images uint8 [N, C, H, W], on the scale [0, 1]."""
    std, mean = torch.std_mean(images.double() / 255, dim=(0, 2, 3), correction=0)
    return tuple(mean.tolist()), tuple(std.tolist())


def boxes_of(masks: Tensor) -> Tensor:
    """The tight half-open box [N, 4] int64 (top, bottom, left, right) around the ones of masks uint8 [N, H, W]."""
    left, top, right, bottom = masks_to_boxes(masks).long().unbind(1)
    return torch.stack((top, bottom + 1, left, right + 1), dim=1)
