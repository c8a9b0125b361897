"""Accuracy over some of a model's classes, how far confidence is from accuracy, and what abstaining is worth (Table 8).

Definitions of evaluation.md 5: logits are restricted to the classes of the data set first, and argmax and softmax are
over those alone. Pure functions of arrays; results are percentages.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
BIN_SIZE = 100  # samples in a bin of the adaptive calibration error
MODES = ("published", "all_bins")


def class_probabilities(logits: ArrayLike, classes: Sequence[int] | None = None) -> Floats:
    """Softmax [N, K] in float64 over the K kept classes of logits [N, C]; `classes` None keeps all.

    Raises:
        ValueError: for no samples, values that are not finite, no classes, or one that is repeated or out of range.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"logits must be [N, C] with at least one sample, not {list(values.shape)}")
    if classes is not None:
        kept = np.asarray(classes, dtype=np.int64)
        if not kept.size or len(np.unique(kept)) < len(kept) or kept.min() < 0 or kept.max() >= values.shape[1]:
            raise ValueError(f"classes must be distinct and within 0 to {values.shape[1] - 1}, at least one of them")
        values = values[:, kept]
    if not np.isfinite(values).all():
        raise ValueError("logits must be finite: is the model's output NaN?")
    exponent = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=1, keepdims=True))


def predictions(
    logits: ArrayLike, labels: ArrayLike, classes: Sequence[int] | None = None
) -> tuple[Floats, NDArray[np.bool_]]:
    """Confidence [N], the largest probability over the kept classes, and whether that class is the label, [N] bool.

    Args:
        logits: [N, C].
        labels: [N] integers; label j is the j-th of `classes`.
        classes: the kept columns of the logits, None for all.

    Raises:
        ValueError: as `class_probabilities`, or for labels that do not fit.
    """
    probabilities = class_probabilities(logits, classes)
    wanted = np.asarray(labels)
    if wanted.shape != probabilities.shape[:1] or wanted.min() < 0 or wanted.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must be [{len(probabilities)}] within 0 to {probabilities.shape[1] - 1}")
    # argmax of the probabilities could tie where the logits do not: exp rounds.
    chosen = np.asarray(logits, dtype=np.float64)
    chosen = (chosen if classes is None else chosen[:, np.asarray(classes)]).argmax(axis=1)
    return probabilities.max(axis=1), chosen == wanted


def accuracy(correct: ArrayLike) -> float:
    """Share of correct samples [N] in percent; ValueError without samples."""
    values = np.asarray(correct)
    if values.ndim != 1 or not len(values):
        raise ValueError("accuracy needs at least one sample")
    return 100 * float(values.mean())


def rms_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, mode: str = "published", bin_size: int = BIN_SIZE
) -> float:
    """Root mean square over bins of mean confidence less accuracy, in percent.

    Bins hold `bin_size` samples in ascending order of confidence, the last one the remainder too. Samples of equal
    confidence keep their order, so that ties across a bin's edge make the result depend on it.

    Args:
        confidence: [N] in [0, 1].
        correct: [N] bool or 0 and 1.
        mode: "published" leaves out the last, most confident bin and still divides by all N, as the script behind the
            paper's numbers does; "all_bins" keeps it.

    Raises:
        ValueError: for fewer than `bin_size` samples, NaN, or another mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    gaps, counts = _gaps(confidence, correct, bin_size)
    if mode == "published":
        if len(gaps) == 1:
            warnings.warn(
                f"{counts[0]} samples make one bin of {bin_size}, which the published calibration error leaves out: "
                f"it is 0",
                stacklevel=2,
            )
        gaps, weights = gaps[:-1], counts[:-1] / counts.sum()
    else:
        weights = counts / counts.sum()
    return 100 * float(np.sqrt((weights * gaps**2).sum()))


def _gaps(confidence: ArrayLike, correct: ArrayLike, bin_size: int) -> tuple[Floats, NDArray[np.int64]]:
    """Mean confidence less accuracy of each bin, and its number of samples."""
    sure, right = _checked(confidence, correct)
    if bin_size < 1 or len(sure) < bin_size:
        raise ValueError(f"the calibration error needs at least one bin of {bin_size} samples, not {len(sure)} samples")
    order = np.argsort(sure, kind="stable")
    starts = np.arange(len(sure) // bin_size) * bin_size
    counts = np.diff(np.append(starts, len(sure)))
    return np.add.reduceat((sure - right)[order], starts) / counts, counts


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Floats]:
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if sure.ndim != 1 or sure.shape != right.shape or not len(sure):
        raise ValueError(f"confidence {list(sure.shape)} and correct {list(right.shape)} must both be [N], N above 0")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("confidence must lie in [0, 1] and not be NaN")
    if not np.isin(right, (0, 1)).all():
        raise ValueError("correct must hold 0 and 1 only")
    return sure, right


def response_accuracy(confidence: ArrayLike, correct: ArrayLike) -> Floats:
    """Accuracy [N] in percent of the k most confident samples, k = 1 .. N; ties keep their order.

    Raises:
        ValueError: for no samples or NaN.
    """
    sure, right = _checked(confidence, correct)
    order = np.argsort(-sure, kind="stable")
    return np.asarray(100 * right[order].cumsum() / np.arange(1, len(sure) + 1))


def aurra(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the response-rate-accuracy curve, in percent: the mean of `response_accuracy`."""
    return float(response_accuracy(confidence, correct).mean())


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> dict[str, NDArray[Any]]:
    """What a reliability diagram shows, over `bins` equally wide bins of confidence.

    Returns:
        "confidence" and "accuracy" [bins], means in percent (0 for an empty bin), and "count" [bins].
    """
    sure, right = _checked(confidence, correct)
    place = np.minimum((sure * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    means = [
        100 * np.bincount(place, weights=values, minlength=bins) / np.maximum(count, 1) for values in (sure, right)
    ]
    return {"confidence": means[0], "accuracy": means[1], "count": count}
