"""Table 8: every metric against a plain reading and at its edges, the stand-ins, ImageNet-A and -O from folders."""

import importlib.resources
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from evaluation import calibration
from evaluation import natural_adversarial as natural
from evaluation.natural_adversarial import class_indices, detection, response_accuracy, rms_calibration_error
from training.data.sets import SHAPES_MEAN, SHAPES_STD, shapes
from training.run_directory import write_json

Array = NDArray[np.float64]


def samples(n: int, seed: int = 0) -> tuple[Array, NDArray[np.bool_]]:
    """n confidences, all different, and whether each was right: more often the surer, yet overconfident."""
    rng = np.random.default_rng(seed)
    sure = rng.permutation(np.linspace(0.2, 0.999, n))
    return sure, rng.random(n) < 0.8 * sure


def plain_calibration(sure: Array, right: NDArray[np.bool_], drop_last: bool, size: int = 100) -> float:
    """Bin by bin, as one would count by hand."""
    pairs = sorted(zip(sure.tolist(), right.tolist(), strict=True), key=lambda pair: pair[0])
    bins = [pairs[start : start + size] for start in range(0, len(pairs) // size * size, size)]
    bins[-1] += pairs[len(pairs) // size * size :]
    total = 0.0
    for members in bins[:-1] if drop_last else bins:
        gap = sum(c for c, _ in members) / len(members) - sum(r for _, r in members) / len(members)
        total += len(members) / len(pairs) * gap**2
    return 100 * math.sqrt(total)


@pytest.mark.parametrize("n", [200, 250, 399, 1234])
@pytest.mark.parametrize("all_bins", [False, True])
def test_calibration_error_equals_the_count_by_hand(n: int, all_bins: bool) -> None:
    sure, right = samples(n)
    expected = plain_calibration(sure, right, drop_last=not all_bins)
    assert rms_calibration_error(sure, right, all_bins) == pytest.approx(expected, abs=1e-10)
    assert expected > 1
    with pytest.raises(ValueError, match="two bins of 100 samples, not 199"):
        rms_calibration_error(*samples(199))


def test_response_rate_accuracy_equals_the_count_by_hand_and_ties_keep_their_order() -> None:
    sure, right = samples(57)
    ranked = [r for _, r in sorted(zip(sure.tolist(), right.tolist(), strict=True), reverse=True)]
    assert response_accuracy(sure, right) == pytest.approx([100 * sum(ranked[:k]) / k for k in range(1, 58)])
    found = response_accuracy(np.full(4, 0.5), np.array([True, False, False, True]))
    assert found.tolist() == pytest.approx([100, 50, 100 / 3, 50])


def test_reliability_adds_up_to_the_whole() -> None:
    sure, right = samples(500)
    bins = natural.reliability(sure, right, 10)
    assert bins["count"].sum() == 500
    assert bins["count"][0] == bins["accuracy"][0] == 0  # no confidence below 0.1
    for name, values in (("accuracy", right), ("confidence", sure)):
        assert (bins["count"] * bins[name]).sum() / 500 == pytest.approx(100 * values.mean())
    assert natural.reliability(np.ones(1), np.ones(1, bool), 4)["count"].tolist() == [0, 0, 0, 1]


def test_expected_calibration_error_and_loss_equal_a_plain_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "test_images", lambda card: shapes(400, seed=1))
    model, images = Linear(16, 10, seed=3), shapes(400, seed=1)
    values = calibration.drive(model, CARD, {}, "cpu").values
    logits = torch.from_numpy(natural.logits_of_images(model, images.images, CARD, "cpu"))
    sure, found = logits.softmax(1).max(1)
    right, bins = (found == images.labels).float(), (15 * sure).long()
    gaps = [abs(float((sure - right)[bins == number].sum())) for number in range(16)]
    assert values["ece"] == pytest.approx(100 * sum(gaps) / 400, abs=1e-4)
    assert values["top1"] == pytest.approx(100 * float(right.mean()))
    assert values["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, images.labels)))


def test_other_classes_play_no_part_huge_logits_survive_and_ties_go_to_the_first() -> None:
    logits = np.array([[9.0, 1.0, 0.0, 2.0], [0.0, 3.0, 9.0, 1.0]])
    sure, right = natural.predictions(logits, np.array([1, 0]), classes=[1, 3])
    assert right.tolist() == [True, True]  # label j is the j-th kept class, whatever the others say
    assert sure == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))])
    assert natural.class_probabilities(np.array([[1e4, -1e4]]), [0, 1])[0].tolist() == [1, 0]
    assert natural.predictions(np.full((1, 2), 2.0), np.array([0]), [0, 1])[1].tolist() == [True]
    with pytest.raises(ValueError, match="finite"):
        natural.class_probabilities(np.full((1, 2), math.nan), [0, 1])


def flagged(inside: Array, outside: Array) -> list[tuple[float, float, float]]:
    """(recall of the outside samples, share of inside ones flagged, precision) at every score, the strictest first."""
    found = []
    for t in np.unique(np.concatenate([inside, outside]))[::-1]:
        true, false = int((outside >= t).sum()), int((inside >= t).sum())
        found.append((true / len(outside), false / len(inside), true / (true + false)))
    return found


@settings(deadline=None)  # the first call of scikit-learn takes its time
@given(seed=st.integers(0, 10**6), known=st.integers(1, 60), unknown=st.integers(1, 60), levels=st.integers(1, 40))
def test_detection_equals_a_plain_reading_with_ties(seed: int, known: int, unknown: int, levels: int) -> None:
    rng = np.random.default_rng(seed)  # few levels make ties
    inside, outside = (rng.integers(0, levels, count) / levels for count in (known, unknown))
    found, points = detection(inside, outside), flagged(inside, outside)
    steps = np.diff([0.0, *(recall for recall, _, _ in points)])
    assert found["aupr"] == pytest.approx(100 * np.dot(steps, [precision for _, _, precision in points]))
    pairs = (outside[:, None] > inside) + 0.5 * (outside[:, None] == inside)
    assert found["auroc"] == pytest.approx(100 * pairs.mean())
    # The published script: nothing beyond the first threshold that finds all; then the last of those nearest to 0.95.
    published = points[: 1 + [recall for recall, _, _ in points].index(1)]
    nearest = min(reversed(published), key=lambda point: abs(point[0] - 0.95))
    assert found["fpr95"] == pytest.approx(100 * nearest[1])
    ours = min(rate for recall, rate, _ in points if recall >= 0.95)
    assert found["fpr_at_recall_95"] == pytest.approx(100 * ours)


CARD: dict[str, Any] = {
    "data": "shapes", "image_size": 16, "mean": SHAPES_MEAN, "std": SHAPES_STD, "num_classes": 10, "key": "tested",
}  # fmt: skip
ARGUMENTS: dict[str, Any] = {
    "classes": list(range(8)), "known_classes": list(range(2, 10)), "pool": 900, "unknown_pool": 300, "share": 0.2,
}  # fmt: skip


class Linear(nn.Module):
    """Fixed random scores of the pixels."""

    def __init__(self, size: int, classes: int, seed: int) -> None:
        super().__init__()
        self.register_buffer(
            "weight", torch.randn(3 * size * size, classes, generator=torch.Generator().manual_seed(seed)) / size
        )

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.get_buffer("weight")


def test_stand_ins_are_what_the_reference_gets_wrong_and_is_surest_about() -> None:
    reference = Linear(16, 10, seed=1)
    judge = partial(natural.model_judge, reference, CARD, "cpu")
    sets = natural.stand_ins(CARD, ARGUMENTS, judge)
    fresh = shapes(900, seed=natural.NATURAL_SEED)
    scores = natural.logits_of_images(reference, fresh.images, CARD, "cpu")
    wanted = [i for i, label in enumerate(fresh.labels.tolist()) if label < 8 and scores[i, :8].argmax() != label]
    assert torch.equal(sets.natural, fresh.images[wanted])
    assert torch.equal(sets.labels, fresh.labels[wanted])
    assert len(sets.inside) == 800  # of 1000 test scenes in ten balanced classes
    unknown = shapes(300, seed=natural.UNKNOWN_SEED, family="unseen shapes").images
    chosen, every = (
        torch.tensor(natural.logits_of_images(reference, images, CARD, "cpu"))[:, 2:].softmax(1).amax(1)
        for images in (sets.outside, unknown)
    )
    assert chosen.sort().values == pytest.approx(every.sort().values[-160:])
    with pytest.raises(ValueError, match="no natural-adversarial stand-in for digits"):
        natural.stand_ins({**CARD, "data": "digits"}, ARGUMENTS, judge)
    with pytest.raises(ValueError, match="160 images of unknown classes are wanted and the pool has 100"):
        natural.stand_ins(CARD, {**ARGUMENTS, "unknown_pool": 100}, judge)
    known = {image.numpy().tobytes() for seed in (0, 1) for image in shapes(300, seed=seed).images}
    assert not known & {image.numpy().tobytes() for images in (fresh.images, unknown) for image in images}
    kept = natural._only(shapes(50, seed=5), [7, 2])
    assert kept.labels.tolist() == [[7, 2].index(x) for x in shapes(50, seed=5).labels.tolist() if x in (7, 2)]


def test_the_nearest_image_judges_in_whole_numbers() -> None:
    known, asked = shapes(200, seed=7), shapes(30, seed=8).images
    kept = [i for i, label in enumerate(known.labels.tolist()) if label in (2, 7, 4)]
    square = (asked.long()[:, None] - known.images[kept].long()).square().flatten(2).sum(2)
    answer, sure = natural.nearest(known, asked, [7, 2, 4])
    labels = [[7, 2, 4].index(known.labels[kept[place]]) for place in square.argmin(1)]
    assert (answer.tolist(), (-sure).tolist()) == (labels, square.amin(1).tolist())


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"key": "tested", "data": "shapes"}, "tested cannot filter the images that it is tested on"),
        ({"key": "other", "data": "digits"}, "other is trained on digits at 16 pixels, not on shapes at 16"),
    ],
)
def test_a_model_cannot_filter_its_own_test(own: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_json(tmp_path / "model.json", own | {"image_size": 16})
    arguments = {**ARGUMENTS, "reference": {"key": own["key"], "seed": 0, "directory": tmp_path}}
    with pytest.raises(ValueError, match=message):
        natural.drive(Linear(16, 10, seed=2), CARD, arguments, "cpu")


def timm_synsets(name: str) -> list[str]:
    """WordNet ids of a set, from the lists that timm ships."""
    text = (importlib.resources.files("timm.data") / "_info" / f"{name}_synsets.txt").read_text()
    return [line.split()[0] for line in text.splitlines()]


def test_classes_of_imagenet_a_by_folder_name_and_incomplete_copies() -> None:
    wnids, kept = (sorted(timm_synsets(name)) for name in ("imagenet", "imagenet_a"))
    indices = class_indices("imagenet-a", kept, wnids)
    assert [wnids[index] for index in indices] == kept
    assert (indices[:6], sum(indices)) == ([6, 11, 13, 15, 17, 22], 102178)
    for name, some, known, message in (
        ("imagenet-a", kept[1:], wnids, "imagenet-a has 199 class folders"),
        ("imagenet-o", kept, wnids, "imagenet-o has 200 class folders with index sum 102178"),
        ("imagenet-a", kept, wnids[1:], "among 999 of imagenet/val"),
        ("imagenet-a", [*kept[1:], "n0"], wnids, "replace it by a complete copy"),
    ):
        with pytest.raises(ValueError, match=message):
            class_indices(name, some, known)


def write_split(folder: Path, wnids: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for wnid in wnids:
        (folder / wnid).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / wnid / "a.png")


def test_imagenet_a_and_o_are_read_from_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = {"data": "imagenet", "image_size": 16, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    model = Linear(16, 1000, seed=3)
    with pytest.raises(ValueError, match=r"imagenet-a is no folder of class folders .*LUMIX_DATA"):
        natural.drive(model, card, {}, "cpu")
    wnids, a = timm_synsets("imagenet"), timm_synsets("imagenet_a")
    o = wnids[100:300]  # the true list is not at hand; its check is replaced by one that fits
    monkeypatch.setitem(natural.CHECKS, "imagenet-o", sum(range(100, 300)))
    write_split(tmp_path / "imagenet" / "val", wnids, seed=0)
    write_split(tmp_path / "imagenet-a", a, seed=1)
    write_split(tmp_path / "imagenet-o", o, seed=2)
    outcome = natural.drive(model, card, {}, "cpu")
    assert [outcome.values[f"{name}_images"] for name in ("natural", "clean", "unknown")] == [200, 200, 200]
    # By hand: the image of the 5th class of ImageNet-A, shorter side to 18 bilinearly, centre crop 16.
    picture = Image.open(tmp_path / "imagenet-a" / sorted(a)[4] / "a.png").resize((21, 18), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)[1:17, 2:18].transpose(2, 0, 1) / 255  # torchvision rounds the offsets 1 and 2.5
    inputs = torch.tensor((pixels - 0.5) / 0.25, dtype=torch.float32)
    read = []
    model.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    natural.drive(model, card, {}, "cpu")
    torch.testing.assert_close(read[0][4], inputs, atol=1e-5, rtol=0)
