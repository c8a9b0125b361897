"""Table 8 as a whole: the stand-ins' recipe, ImageNet-A and -O from folders, and every number against its metric."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_evaluate_calibration import timm_synsets
from torch import Tensor, nn

from evaluation.natural import adversarial, calibration, stand_ins
from evaluation.natural.calibration import detection
from training.data.sets import SHAPES_MEAN, SHAPES_STD, shapes
from training.run_directory import write_json

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
    sets = stand_ins.stand_ins(CARD, ARGUMENTS, reference, "cpu")
    fresh = shapes(900, seed=stand_ins.NATURAL_SEED)
    scores = stand_ins.logits_of_images(reference, fresh.images, CARD, "cpu")
    wanted = [
        i for i, label in enumerate(fresh.labels.tolist()) if label < 8 and int(scores[i, :8].argmax()) != label
    ]  # fmt: skip
    assert torch.equal(sets.natural, fresh.images[wanted])
    assert torch.equal(sets.labels, fresh.labels[wanted])
    assert len(sets.inside) == 800  # of 1000 test scenes in ten balanced classes
    assert len(sets.outside) == 160
    unknown = shapes(300, seed=stand_ins.UNKNOWN_SEED, family="unseen shapes").images
    chosen, every = (
        torch.tensor(stand_ins.logits_of_images(reference, images, CARD, "cpu"))[:, 2:].softmax(1).amax(1)
        for images in (sets.outside, unknown)
    )
    assert chosen.sort().values == pytest.approx(every.sort().values[-160:])


def test_fresh_scenes_are_neither_trained_nor_tested_on() -> None:
    known = {image.numpy().tobytes() for seed in (0, 1) for image in shapes(300, seed=seed).images}
    for images in (
        shapes(300, seed=stand_ins.NATURAL_SEED),
        shapes(300, stand_ins.UNKNOWN_SEED, family="unseen shapes"),
    ):
        assert not known & {image.numpy().tobytes() for image in images.images}


def test_labels_count_among_the_kept_classes() -> None:
    images = shapes(50, seed=5)
    kept = stand_ins._only(images, [7, 2])
    expected = [[7, 2].index(label) for label in images.labels.tolist() if label in (7, 2)]
    assert kept.labels.tolist() == expected


def test_bad_recipes_are_refused() -> None:
    reference = Linear(16, 10, seed=1)
    with pytest.raises(ValueError, match="no natural-adversarial stand-in for digits"):
        stand_ins.stand_ins({**CARD, "data": "digits"}, ARGUMENTS, reference, "cpu")
    with pytest.raises(ValueError, match="160 images of unknown classes are wanted and the pool has 100"):
        stand_ins.stand_ins(CARD, {**ARGUMENTS, "unknown_pool": 100}, reference, "cpu")


def test_every_metric_of_the_sets_is_measured() -> None:
    sets = stand_ins.stand_ins(CARD, ARGUMENTS, Linear(16, 10, seed=1), "cpu")
    model = Linear(16, 10, seed=2)
    natural, inside, outside = (
        stand_ins.logits_of_images(model, images, CARD, "cpu") for images in (sets.natural, sets.inside, sets.outside)
    )
    outcome = adversarial.measure(natural, sets.labels.numpy(), range(8), inside, outside, range(2, 10))
    confidence, correct = calibration.predictions(natural, sets.labels.numpy(), range(8))
    scores = [-torch.tensor(logits[:, 2:]).double().softmax(1).amax(1).numpy() for logits in (inside, outside)]
    values = outcome.values
    assert values["top1"] == pytest.approx(100 * float((natural[:, :8].argmax(1) == sets.labels.numpy()).mean()))
    assert values["calibration_error"] == calibration.rms_calibration_error(confidence, correct)
    assert values["calibration_error_all_bins"] == calibration.rms_calibration_error(confidence, correct, True)
    assert values["aurra"] == calibration.response_accuracy(confidence, correct).mean()
    assert {name: values[name] for name in ("aupr", "auroc", "fpr95", "fpr_at_recall_95")} == pytest.approx(
        detection(*scores)
    )
    counts = [values[f"{name}_images"] for name in ("natural", "clean", "unknown")]
    assert counts == [len(sets.natural), 800, 160]
    assert outcome.n_samples == sum(counts)
    assert outcome.arrays["response_accuracy"][-1] == pytest.approx(values["top1"])
    assert outcome.arrays["reliability_count"].sum() == len(sets.natural)


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
        adversarial.drive(Linear(16, 10, seed=2), CARD, arguments, "cpu")


def test_one_bin_of_scores_must_be_finite() -> None:
    logits = np.full((100, 4), math.nan)
    with pytest.raises(ValueError, match="finite"):
        adversarial.measure(logits, np.zeros(100, np.int64), [0, 1], logits, logits, [0, 1])


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
        adversarial.drive(model, card, {}, "cpu")
    wnids, a = timm_synsets("imagenet"), timm_synsets("imagenet_a")
    o = wnids[100:300]  # the true list is not at hand; its check is replaced by one that fits
    monkeypatch.setitem(adversarial.CHECKS, "imagenet-o", sum(range(100, 300)))
    write_split(tmp_path / "imagenet" / "val", wnids, seed=0)
    write_split(tmp_path / "imagenet-a", a, seed=1)
    write_split(tmp_path / "imagenet-o", o, seed=2)
    outcome = adversarial.drive(model, card, {}, "cpu")
    assert [outcome.values[f"{name}_images"] for name in ("natural", "clean", "unknown")] == [200, 200, 200]
    # By hand: the image of the 5th class of ImageNet-A, shorter side to 18 bilinearly, centre crop 16.
    picture = Image.open(tmp_path / "imagenet-a" / sorted(a)[4] / "a.png").resize((21, 18), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)[1:17, 2:18].transpose(2, 0, 1) / 255  # torchvision rounds the offsets 1 and 2.5
    inputs = torch.tensor((pixels - 0.5) / 0.25, dtype=torch.float32)
    read = []
    model.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    adversarial.drive(model, card, {}, "cpu")
    torch.testing.assert_close(read[0][4], inputs, atol=1e-5, rtol=0)
