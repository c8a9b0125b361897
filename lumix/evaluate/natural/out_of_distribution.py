"""Telling images of unknown classes from known ones by the confidence of a classifier (evaluation.md 6, Table 8).

The score is the negative largest softmax probability, and out-of-distribution is the positive class: an AUPR near 90 on
ImageNet-O means that the two were swapped. Pure functions of arrays; results are percentages.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lumix.evaluate.natural.calibration import class_probabilities

RECALL = 0.95


def anomaly_score(logits: ArrayLike, classes: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Negative largest probability [N] over the kept classes of logits [N, C]; higher is more anomalous.

    Raises:
        ValueError: as `lumix.evaluate.natural.calibration.class_probabilities`.
    """
    return -class_probabilities(logits, classes).max(axis=1)


def aupr(inside: ArrayLike, outside: ArrayLike) -> float:
    """Average precision of finding the outside samples, scikit-learn's step-wise sum over distinct thresholds.

    Args:
        inside, outside: scores [N] and [M] of known and of unknown images.

    Raises:
        ValueError: for an empty side or NaN.
    """
    from sklearn.metrics import average_precision_score

    return 100 * float(average_precision_score(*_labelled(inside, outside)))


def auroc(inside: ArrayLike, outside: ArrayLike) -> float:
    """Probability that an outside sample scores above an inside one, ties counting half."""
    from sklearn.metrics import roc_auc_score

    return 100 * float(roc_auc_score(*_labelled(inside, outside)))


def fpr95(inside: ArrayLike, outside: ArrayLike) -> float:
    """Share of inside samples flagged at the threshold whose recall of the outside ones is nearest to 95 %.

    The published rule: of equally near thresholds the one that flags most counts, except that no threshold beyond the
    first of recall 1 does. So it may find less than 95 %, and flag more than a better threshold would.
    """
    false, recall = _rates(inside, outside)
    last = int(np.argmax(recall))  # the first threshold that finds all
    distance = np.abs(recall[: last + 1] - RECALL)
    return 100 * float(false[np.flatnonzero(distance == distance.min())[-1]])


def fpr_at_recall_95(inside: ArrayLike, outside: ArrayLike) -> float:
    """The smallest share of inside samples flagged at a threshold that finds at least 95 % of the outside samples."""
    false, recall = _rates(inside, outside)
    return 100 * float(false[recall >= RECALL - 1e-12].min())


def _rates(inside: ArrayLike, outside: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of inside and of outside samples flagged at each threshold, from none to all."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(*_labelled(inside, outside), drop_intermediate=False)
    return false, true


def _labelled(inside: ArrayLike, outside: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    known, unknown = np.asarray(inside, dtype=np.float64), np.asarray(outside, dtype=np.float64)
    if known.ndim != 1 or unknown.ndim != 1 or not len(known) or not len(unknown):
        raise ValueError(f"scores must be [N] and [M], both above 0, not {list(known.shape)} and {list(unknown.shape)}")
    if not (np.isfinite(known).all() and np.isfinite(unknown).all()):
        raise ValueError("scores must be finite")
    labels = np.concatenate([np.zeros(len(known), np.int64), np.ones(len(unknown), np.int64)])
    return labels, np.concatenate([known, unknown])
