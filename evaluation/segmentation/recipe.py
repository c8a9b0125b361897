"""How a decoder is trained for Table 4, and how its segmentations are made. Imports no torch: tables list at once."""

from dataclasses import dataclass

from training.records import Config, one_of, within

DATA_SETS = ("shapes", "camvid", "pascal_context")
DECODERS = ("segmenter", "deeplabv3plus")


@dataclass(frozen=True)
class Recipe(Config):
    """Everything that decides a segmentation result beside the pre-trained weights and the run's seed.

    Defaults are Segmenter's on Pascal Context (recipes.md 3): SGD with momentum 0.9, polynomial decay of power 0.9 per
    iteration, random resize by 0.5 to 2, random crop of which one class fills at most 0.75, flip, photometric
    distortion, tested with a sliding window.

    Attributes:
        data: one of `DATA_SETS`.
        decoder: "segmenter" (mask transformer on a ViT) or "deeplabv3plus" (on a ResNet, with an auxiliary head).
        base: an image is resized, keeping its aspect, so that its longer side has this many pixels.
        crop: side of the training crops and of the sliding window.
        stride: pixels between two windows.
        iterations, batch_size: updates, and crops in each.
        drop_path: of the ViT encoder, rising linearly to this value at its last block.
        dropout: within the decoder.
        scale_low, scale_high: range of the random resize relative to `base`.
        photometric: whether brightness, contrast, saturation and hue are distorted.
        width: channels of DeepLabV3+'s decoder; Segmenter's decoder has its encoder's width.
        dilation: first of DeepLabV3+'s three dilations d, 2d and 3d.
        test_size: first images of the test set, as far as it has them; 0 is all.
        precision: "float32", or "bfloat16" for automatic mixed precision in training. Testing is in float32.
    """

    data: str
    decoder: str = "segmenter"
    base: int = 520
    crop: int = 480
    stride: int = 320
    iterations: int = 80_000
    batch_size: int = 16
    lr: float = 1e-3
    min_lr: float = 1e-5
    weight_decay: float = 0.0
    drop_path: float = 0.1
    dropout: float = 0.1
    scale_low: float = 0.5
    scale_high: float = 2.0
    photometric: bool = True
    width: int = 512
    dilation: int = 12
    test_size: int = 0
    precision: str = "float32"

    def check(self) -> None:
        for name, allowed in (("data", DATA_SETS), ("decoder", DECODERS), ("precision", ("float32", "bfloat16"))):
            one_of(self, name, allowed)
        for name in ("base", "crop", "stride", "iterations", "batch_size", "width", "dilation"):
            within(self, name, 1)
        for name in ("test_size", "lr", "min_lr", "weight_decay", "scale_low"):
            within(self, name, 0)
        for name in ("drop_path", "dropout"):
            within(self, name, 0, 1)
        if self.stride > self.crop:
            raise ValueError(f"Recipe.stride {self.stride} must be at most the crop {self.crop}, or pixels are skipped")
        within(self, "scale_high", self.scale_low)
