"""Natural adversarial images and unknown classes (LUMix Table 8): accuracy, calibration, abstaining, detection.

ImageNet-A are pictures of 200 known classes that a fixed reference model gets wrong; ImageNet-O are pictures of unknown
classes that it takes for known ones with confidence. Small data have stand-ins by the same recipe: fresh scenes of
shapes and shapes never trained on, judged by the nearest training image (mini); CIFAR-100's test set and Tiny-ImageNet,
judged by a reference model of the same scale (lab).

Logits are restricted to the classes of the data set before argmax and softmax. All in percent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor, nn
from torch.utils.data import Subset

from evaluation.evaluation import Outcome
from evaluation.images import Card, Device, batches, normalised, robustness_transform, test_images
from evaluation.models import second_model
from training.config import Data
from training.data.files import ClassFolders, data_root
from training.data.sets import SHAPES_SIZE, ImageSet, load, shapes, tiny_imagenet

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Logits = NDArray[np.floating]
Labels = NDArray[np.int64]
BIN_SIZE = 100  # samples in a bin of the adaptive calibration error
RECALL = 0.95
CURVE_POINTS = 40  # of the response rate, for the figure
NATURAL_SEED, UNKNOWN_SEED = 2, 3  # of fresh scenes; 0 and 1 are the training and the test set
# Sum of the places of the 200 classes of ImageNet-A and -O among ImageNet's 1000, which tells a complete copy.
CHECKS = {"imagenet-a": 102178, "imagenet-o": 134542}
# Classes of Tiny-ImageNet that show a class of CIFAR-100 (a goldfish is an aquarium fish), by our own reading of names.
SHARED_WITH_CIFAR100 = frozenset(
    """
    n01443537 n01698640 n01742172 n01774384 n01774750 n01944390 n01983481 n01984695 n02129165 n02132136 n02165456
    n02206856 n02233338 n02279972 n02281406 n02403003 n02437312 n02481823 n02504458 n02793495 n02823428 n02917067
    n03042490 n03085013 n03179701 n03201208 n03393912 n03637318 n03649909 n03902125 n03937543 n03983396 n04008634
    n04099969 n04146614 n04275548 n04311004 n04328186 n04366367 n04417672 n04465501 n04487081 n04532670 n07579787
    n07720875 n07734744 n07747607 n07920052 n09193705 n09332890 n09428293
    """.split()  # noqa: SIM905 - a list of one name a line would fill the page
)


def class_probabilities(logits: Logits, classes: Sequence[int]) -> Floats:
    """Softmax [N, K] in float64 over the K kept classes of logits [N, C]; ValueError for logits that are not finite."""
    values = logits[:, classes].astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("logits must be finite: is the model's output NaN?")
    return np.asarray(softmax(values, axis=1))


def predictions(logits: Logits, labels: Labels, classes: Sequence[int]) -> tuple[Floats, Bools]:
    """Confidence [N], the largest probability over the kept classes, and whether that class is the label, [N] bool.

    Logits are [N, C]; label j of labels [N] is the j-th of `classes`, the kept columns.
    """
    # argmax of the probabilities could tie where the logits do not: exp rounds.
    return class_probabilities(logits, classes).max(axis=1), logits[:, classes].argmax(axis=1) == labels


def rms_calibration_error(confidence: Floats, correct: Bools, all_bins: bool = False) -> float:
    """Root mean square over bins of mean confidence less accuracy, in percent.

    Bins hold `BIN_SIZE` samples in ascending order of confidence [N], ties in their order, the last one the remainder
    too. The script behind the paper's numbers leaves that bin out (not with `all_bins`), though it divides by all N.
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


def expected_calibration_error(confidence: Floats, correct: Bools) -> float:
    """ECE (Guo et al. 2017) in percent: mean confidence less accuracy of 15 equally wide bins, in size, by count."""
    bins = reliability(confidence, correct, 15)
    return float(bins["count"] @ abs(bins["confidence"] - bins["accuracy"])) / len(confidence)


def detection(inside: Floats, outside: Floats) -> dict[str, float]:
    """Of finding the outside samples: "aupr", "auroc", "fpr95" and "fpr_at_recall_95".

    Scores [N] and [M] of known and of unknown images are higher where an image is more anomalous. "fpr95" is the share
    of inside samples flagged at the threshold whose recall is nearest to 95 %, of equally near ones, up to the first of
    recall 1, the one that flags most, as published. "fpr_at_recall_95" (ours) is the least share at 95 % or more.
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


def measure(
    natural: Logits, labels: Labels, classes: Sequence[int],
    inside: Logits, clean_labels: Labels, outside: Logits, known: Sequence[int],
) -> Outcome:  # fmt: skip
    """The metrics of logits: natural [N, C] and clean [M, C] images, labels among their classes; unknown [K, C]."""
    confidence, correct = predictions(natural, labels, classes)
    response = response_accuracy(confidence, correct)
    ranks = np.ceil(np.arange(1, CURVE_POINTS + 1) * len(response) / CURVE_POINTS).astype(np.int64) - 1
    doubts = (-class_probabilities(logits, known).max(axis=1) for logits in (inside, outside))
    counts = {"natural_images": len(natural), "clean_images": len(inside), "unknown_images": len(outside)}
    values = {
        "top1": 100 * float(correct.mean()),
        "calibration_error": rms_calibration_error(confidence, correct),
        "calibration_error_all_bins": rms_calibration_error(confidence, correct, all_bins=True),
        "aurra": float(response.mean()),
        "clean_ece": expected_calibration_error(*predictions(inside, clean_labels, known)),
    }
    arrays = {f"reliability_{name}": found for name, found in reliability(confidence, correct).items()}
    arrays["response_accuracy"] = response[ranks]
    return Outcome(values | detection(*doubts) | counts, sum(counts.values()), arrays)


def drive(model: nn.Module, card: Card, arguments: Mapping[str, Any], device: Device) -> Outcome:
    """Every number of Table 8 for one model; the outcome counts natural, clean and unknown images together.

    ImageNet models take no arguments; others those of `stand_ins` and what filters the pools: "reference", a model that
    is not the one under test, or "seen", the number of training images of which the nearest one judges.
    """
    if card["data"] == "imagenet":
        return _on_imagenet(model, card, device)
    if (reference := arguments.get("reference")) is None:
        judge: Judge = partial(nearest, load(Data(card["data"], card["image_size"]))[0][: arguments["seen"]])
    else:
        if reference["key"] == card["key"]:
            raise ValueError(f"{card['key']} cannot filter the images that it is tested on: choose another reference")
        judge = partial(model_judge, second_model(reference, card, device), card, device)
    sets = stand_ins(card, arguments, judge)
    images = sets.natural, sets.inside, sets.outside
    natural, inside, outside = (logits_of_images(model, some, card, device) for some in images)
    labels, clean_labels = sets.labels.numpy(), sets.clean_labels.numpy()
    return measure(natural, labels, arguments["classes"], inside, clean_labels, outside, arguments["known_classes"])


def _on_imagenet(model: nn.Module, card: Card, device: Device) -> Outcome:
    """On ImageNet-A, and on ImageNet-O against the validation images of the latter's 200 classes."""
    transform = robustness_transform(card["image_size"], card["mean"], card["std"])
    folders = ("imagenet-a", "imagenet-o", "imagenet/val")
    natural, unknown, clean = (ClassFolders(data_root() / name, transform) for name in folders)
    classes = class_indices("imagenet-a", natural.classes, clean.classes)
    known = class_indices("imagenet-o", unknown.classes, clean.classes)
    kept: Subset[Any] = Subset(clean, np.flatnonzero(np.isin(clean.targets, known)).tolist())
    of_natural, inside, outside = (
        logits_of(model, (images for images, _ in batches(pictures, 256)), device)
        for pictures in (natural, kept, unknown)
    )
    clean_labels = np.searchsorted(known, np.array(clean.targets)[kept.indices])
    return measure(of_natural, np.array(natural.targets), classes, inside, clean_labels, outside, known)


def class_indices(name: str, kept: Sequence[str], known: Sequence[str]) -> list[int]:
    """Places of the class folders of ImageNet-A or -O among ImageNet's; ValueError for a copy that is not complete."""
    place = {wnid: index for index, wnid in enumerate(known)}
    indices = [place[wnid] for wnid in kept if wnid in place]
    if (len(known), len(kept), sum(indices)) != (1000, 200, CHECKS[name]):
        raise ValueError(
            f"{name} has {len(kept)} class folders with index sum {sum(indices)} among {len(known)} of imagenet/val, "
            f"not 200 with {CHECKS[name]} among 1000: replace it by a complete copy"
        )
    return indices


def logits_of_images(model: nn.Module, images: Tensor, card: Card, device: Device) -> Logits:
    """Logits [N, C] of uint8 images, normalised as the card says."""
    return logits_of(model, (normalised(part.to(device), card) for part in images.split(1000)), device)


@torch.inference_mode()
def logits_of(model: nn.Module, batches: Iterable[Tensor], device: Device) -> Logits:
    """Logits [N, C] float32 of batches of normalised images."""
    return torch.cat([model(images.to(device)).float().cpu() for images in batches]).numpy()


# Images uint8 [N, C, H, W] and kept classes -> the place [N] among these of each answer, and how sure it is [N].
Judge = Callable[[Tensor, Sequence[int]], tuple[Labels, Floats]]


def model_judge(
    model: nn.Module, card: Card, device: Device, images: Tensor, classes: Sequence[int]
) -> tuple[Labels, Floats]:
    """A trained model, sure by its softmax."""
    logits = logits_of_images(model, images, card, device)
    return logits[:, classes].argmax(1), class_probabilities(logits, classes).max(1)


def nearest(known: ImageSet, images: Tensor, classes: Sequence[int]) -> tuple[Labels, Floats]:
    """The nearest known image, of equal ones the first, sure by its squared distance: whole numbers on all machines."""
    kept = _only(known, classes)
    points, asked = (some.flatten(1).double() for some in (kept.images, images))
    square = (points.square().sum(1) - 2 * asked @ points.T) + asked.square().sum(1, keepdim=True)
    least, place = square.min(1)
    return kept.labels[place].numpy(), -least.numpy()


class NaturalSets(NamedTuple):
    """Images uint8 [N, C, H, W]; labels count among the kept classes."""

    natural: Tensor  # of the kept `classes`, all of them wrong by the judge
    labels: Tensor
    inside: Tensor  # clean test images of `known_classes`
    clean_labels: Tensor
    outside: Tensor  # of unknown classes, those that the judge is surest about


def stand_ins(card: Card, arguments: Mapping[str, Any], judge: Judge) -> NaturalSets:
    """The sets for a model of small images, filtered by a judge.

    Arguments: "classes" and "known_classes", those kept of the natural and of the clean images; "pool", fresh scenes of
    shapes (other data have but their test set); "unknown_pool", unknown images, of which "share" a clean one are kept.
    """
    pool, clean, unknown = _pools(card, arguments)
    classes, known = arguments["classes"], arguments["known_classes"]
    of_classes, inside = _only(pool, classes), _only(clean, known)
    wrong = torch.from_numpy(judge(of_classes.images, classes)[0]) != of_classes.labels
    wanted = round(len(inside) * arguments["share"])
    if len(unknown) < wanted:
        raise ValueError(f"{wanted} images of unknown classes are wanted and the pool has {len(unknown)}: enlarge it")
    surest = np.argsort(-judge(unknown, known)[1], kind="stable")[:wanted]
    natural = of_classes.images[wrong], of_classes.labels[wrong]
    return NaturalSets(*natural, inside.images, inside.labels, unknown[surest])


def _pools(card: Card, arguments: Mapping[str, Any]) -> tuple[ImageSet, ImageSet, Tensor]:
    """Images to filter by the judge, clean test images, and images of unknown classes."""
    name, size = card["data"], card["image_size"]
    if name == "shapes":
        factor = size // SHAPES_SIZE
        fresh = shapes(arguments["pool"], seed=NATURAL_SEED).enlarged(factor)
        unknown = shapes(arguments["unknown_pool"], seed=UNKNOWN_SEED, family="unseen shapes").enlarged(factor)
        return fresh, test_images(card), unknown.images
    if name == "cifar100":
        # The first training images of Tiny-ImageNet whose class CIFAR-100 has not, averaged down to 32 pixels.
        train, test = tiny_imagenet(data_root())[0], test_images(card)
        own = torch.tensor([wnid not in SHARED_WITH_CIFAR100 for wnid in train.class_names])
        images = train.images[own[train.labels].nonzero().squeeze(1)[: arguments["unknown_pool"]]]
        small = torch.nn.functional.avg_pool2d(images.float(), 2).round().to(torch.uint8)
        return test, test, small.repeat_interleave(size // 32, 2).repeat_interleave(size // 32, 3)
    raise ValueError(f"there is no natural-adversarial stand-in for {name}: use shapes, cifar100 or imagenet")


def _only(images: ImageSet, classes: Sequence[int]) -> ImageSet:
    """The images of some classes, their labels counted among these."""
    place = torch.full((images.num_classes,), -1, dtype=torch.int64)
    place[list(classes)] = torch.arange(len(classes))
    labels = place[images.labels]
    kept = (labels >= 0).nonzero().squeeze(1)
    return ImageSet(images.images[kept], labels[kept], len(classes), images.mean, images.std)
