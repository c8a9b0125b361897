"""Terms of a loss: each gives a value per sample, and `lumix.MixLoss` adds them up."""

from lumix.terms.base import Term
from lumix.terms.binary_cross_entropy import BinaryCrossEntropy
from lumix.terms.cross_entropy import CrossEntropy
from lumix.terms.regulariser import Regulariser

__all__ = ["BinaryCrossEntropy", "CrossEntropy", "Regulariser", "Term"]
