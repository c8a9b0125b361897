"""Confidence over some of a model's classes, how far it is from accuracy, and what abstaining is worth (Table 8).

Definitions of evaluation.md 5 and 6: logits are restricted to the classes of the data set first, argmax and softmax are
over those alone. Pure functions of arrays; results are percentages.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
BIN_SIZE = 100  # samples in a bin of the adaptive calibration error
RECALL = 0.95


def class_probabilities(logits: NDArray[np.floating], classes: Sequence[int]) -> Floats:
    """Softmax [N, K] in float64 over the K kept classes of logits [N, C]; ValueError for logits that are not finite."""
    values = logits[:, classes].astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("logits must be finite: is the model's output NaN?")
    return np.asarray(softmax(values, axis=1))


def predictions(
    logits: NDArray[np.floating], labels: NDArray[np.int64], classes: Sequence[int]
) -> tuple[Floats, Bools]:
    """Confidence [N], the largest probability over the kept classes, and whether that class is the label, [N] bool.

    Args:
        logits: [N, C].
        labels: [N]; label j is the j-th of `classes`.
        classes: the kept columns of the logits.
    """
    # argmax of the probabilities could tie where the logits do not: exp rounds.
    return class_probabilities(logits, classes).max(axis=1), logits[:, classes].argmax(axis=1) == labels


def rms_calibration_error(confidence: Floats, correct: Bools, all_bins: bool = False) -> float:
    """Root mean square over bins of mean confidence less accuracy, in percent.

    Bins hold `BIN_SIZE` samples in ascending order of confidence, the last one the remainder too. Samples of equal
    confidence keep their order, so that ties across a bin's edge make the result depend on it.

    Args:
        confidence: [N] in [0, 1].
        correct: [N].
        all_bins: keep the last, most confident bin, which the script behind the paper's numbers leaves out, though it
            divides by all N.

    Raises:
        ValueError: for fewer samples than two bins.
    """
    if len(confidence) < 2 * BIN_SIZE:
        raise ValueError(f"the calibration error needs two bins of {BIN_SIZE} samples, not {len(confidence)} samples")
    order = np.argsort(confidence, kind="stable")
    starts = np.arange(len(order) // BIN_SIZE) * BIN_SIZE
    counts = np.diff(np.append(starts, len(order)))
    gaps = np.add.reduceat((confidence - correct)[order], starts) / counts
    parts = counts / len(order) * gaps**2
    return 100 * float(np.sqrt((parts if all_bins else parts[:-1]).sum()))


def response_accuracy(confidence: Floats, correct: Bools) -> Floats:
    """Accuracy [N] in percent of the k most confident samples, k = 1 .. N; ties keep their order. Its mean is AURRA."""
    order = np.argsort(-confidence, kind="stable")
    return np.asarray(100 * correct[order].cumsum() / np.arange(1, len(order) + 1))


def reliability(confidence: Floats, correct: Bools, bins: int = 10) -> dict[str, Floats]:
    """What a reliability diagram shows: of equally wide bins the means in percent (0 if empty), and the "count"."""
    count, *sums = (np.histogram(confidence, bins, (0, 1), weights=w)[0] for w in (None, confidence, 1.0 * correct))
    means = [100 * total / np.maximum(count, 1) for total in sums]
    return {"confidence": means[0], "accuracy": means[1], "count": count}


def detection(inside: Floats, outside: Floats) -> dict[str, float]:
    """Of finding the outside samples: "aupr", "auroc", "fpr95" and "fpr_at_recall_95".

    "fpr95" is the share of inside samples flagged at the threshold whose recall is nearest to 95 %. The published rule:
    of equally near thresholds the one that flags most counts, except that no threshold beyond the first of recall 1
    does. So it may find less than 95 %, and flag more than a better threshold would: "fpr_at_recall_95", which is ours,
    is the least share at a recall of at least 95 %. An AUPR near 90 on ImageNet-O
    means that the two sides were swapped.

    Args:
        inside, outside: scores [N] and [M] of known and of unknown images; higher is more anomalous.
    """
    labelled = np.repeat((0, 1), (len(inside), len(outside))), np.concatenate([inside, outside])
    false, recall, _ = roc_curve(*labelled, drop_intermediate=False)
    last = int(np.argmax(recall))  # the first threshold that finds all
    distance = np.abs(recall[: last + 1] - RECALL)
    return {
        "aupr": 100 * float(average_precision_score(*labelled)),
        "auroc": 100 * float(roc_auc_score(*labelled)),
        "fpr95": 100 * float(false[np.flatnonzero(distance == distance.min())[-1]]),
        "fpr_at_recall_95": 100 * float(false[recall >= RECALL].min()),
    }
