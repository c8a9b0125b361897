"""Arguments of protocols as tables write them: grids (Table 7), losses (Table 9), segmentation recipes (Table 4)."""

from dataclasses import dataclass
from typing import Literal

from lumix.inputs import Count, CountOrNone, NotNegative, Share
from training.config import Config

# Number of patches -> rows and columns: the paper's six, then the finer ones that its text speaks of (I-29).
GRIDS = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 196: (14, 14)}
AVERAGED = (1, 4, 8, 16, 32, 64)
LOSSES = tuple(range(0, 100, 10))  # per cent; the columns of Table 9
ATTENDED = ("non_salient", "salient", "non_salient_by_count", "salient_by_count")
VARIANTS = ("random", *ATTENDED)


def fitting_grids(image_size: int, token: int) -> list[int]:
    """The grids that divide a square image of that side into patches no smaller than one token of that side."""
    return [
        grid
        for grid, sides in GRIDS.items()
        if all(image_size % side == 0 and image_size // side >= token for side in sides)
    ]


@dataclass(frozen=True)
class Recipe(Config):
    """How a decoder is trained and its segmentations are made: all beside the pre-trained weights and the run's seed.

    Defaults are Segmenter's on Pascal Context: SGD, polynomial decay of power 0.9 per iteration, random
    crops of which one class fills at most 0.75, tested with a sliding window.
    """

    data: Literal["shapes", "camvid", "pascal_context"]
    decoder: Literal["segmenter", "deeplabv3plus"] = "segmenter"  # on a ViT; on a ResNet, with an auxiliary head
    base: Count = 520  # an image is resized, keeping its aspect, so that its longer side has this many pixels
    crop: Count = 480  # side of the training crops and of the sliding window
    stride: Count = 320  # pixels between two windows
    iterations: Count = 80_000
    batch_size: Count = 16  # crops in an iteration
    lr: NotNegative = 1e-3
    min_lr: NotNegative = 1e-5
    weight_decay: NotNegative = 0.0
    drop_path: Share = 0.1  # of the ViT encoder, rising linearly to this value at its last block
    dropout: Share = 0.1  # within the decoder
    scale_low: NotNegative = 0.5  # range of the random resize relative to `base`
    scale_high: NotNegative = 2.0
    photometric: bool = True  # whether brightness, contrast, saturation and hue are distorted
    width: Count = 512  # channels of DeepLabV3+'s decoder; Segmenter's decoder has its encoder's width
    dilation: Count = 12  # first of DeepLabV3+'s three dilations d, 2d and 3d
    test_size: CountOrNone = 0  # first images of the test set, as far as it has them; 0 is all
    precision: Literal["float32", "bfloat16"] = "float32"  # the latter: automatic, in training; testing is in float32

    def check(self) -> None:
        if self.stride > self.crop:
            raise ValueError(f"Recipe.stride {self.stride} must be at most the crop {self.crop}, or pixels are skipped")
        if self.scale_high < self.scale_low:
            raise ValueError(f"Recipe.scale_high {self.scale_high} must be at least scale_low {self.scale_low}")
