"""Views: what a semi-supervised task trains on, several pictures of each labelled and of each unlabelled image."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Views:
    """Normalised views, as many as the task asks for: labelled ones [B, C, H, W], unlabelled ones [ratio B, C, H, W].

    Row i of every view of a kind is the same image; labels go with the labelled ones.
    """

    labelled: tuple[Tensor, ...]
    unlabelled: tuple[Tensor, ...]

    def each(self, function: Callable[[Tensor], Tensor]) -> "Views":
        """The same with `function` of every view."""
        return Views(tuple(map(function, self.labelled)), tuple(map(function, self.unlabelled)))
