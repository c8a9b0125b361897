"""Segmentation (Table 4): decoders, crops, reproducible fine-tuning, metrics, windows and scales, what files may be."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import stream
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from evaluation import segmentation as seg
from evaluation.arguments import Recipe
from evaluation.scenes import CONTEXT_FOLDERS, IGNORE, load_scenes, resident
from evaluation.segmentation import (
    Crops,
    MaskTransformer,
    Segmenter,
    build,
    probabilities,
    segment,
    slide,
    training_crop,
)
from training.config import Model
from training.models import build_model

VIT = Model(
    "deit_s",
    "deit_small_patch16_224",
    {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2.0},
    init="small",
)
RESNET = Model("resnet50", "resnet50", {"channels": [4, 8, 16, 32], "layers": [1, 1, 1, 1]})
SHORT = Recipe("shapes", iterations=3, batch_size=4, photometric=False, test_size=4, width=8, dilation=1, stride=16)
TINY = SHORT.replace(base=24, crop=24)
DEEPLAB = TINY.replace(decoder="deeplabv3plus", base=32, crop=32)
BOTH = pytest.mark.parametrize(("model", "recipe"), [(VIT, TINY.replace(drop_path=0.3)), (RESNET, DEEPLAB)])


def network(model: Model) -> tuple[nn.Module, dict[str, Any]]:
    """A network as a run leaves it, and its card."""
    card = {"model": model.to_dict(), "in_chans": 3, "image_size": 16, "num_classes": 10, "seed": 3}
    card |= {"mean": [0.3, 0.3, 0.4], "std": [0.25, 0.2, 0.1]}
    return build_model(model, 10, 3, 16, seed=0).eval(), json.loads(json.dumps(card))


def test_decoder_has_the_shapes_parameters_and_bounds_of_its_contract() -> None:
    decoder = MaskTransformer(width=384, heads=6, num_classes=60).eval()
    patches, order = torch.randn(2, 9, 384, generator=stream()), torch.randperm(9, generator=stream())
    scores = decoder(patches)
    assert scores.shape == (2, 9, 60)
    torch.testing.assert_close(decoder(patches[:, order]), scores[:, order], atol=1e-5, rtol=1e-4)  # in any order
    # The last norm makes the scores of a patch mean 0 and variance 1; before it they are cosines.
    torch.testing.assert_close(scores.mean(2), torch.zeros(2, 9), atol=1e-5, rtol=0)
    decoder.score_norm = nn.Identity()  # type: ignore[assignment]
    assert decoder(patches).abs().max() <= 1 + 1e-6


@BOTH
def test_every_parameter_that_is_used_gets_a_gradient_and_logits_have_the_size_of_the_image(
    model: Model, recipe: Recipe
) -> None:
    built = build(*network(model), recipe.replace(drop_path=0.1), 5).train()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm begins residual branches at zero, which lets no gradient through
    images = torch.randn(2, 3, recipe.crop, recipe.crop, generator=stream())
    masks = torch.randint(0, 5, (2, recipe.crop, recipe.crop), generator=stream())
    seg.segmentation_loss(built(images), masks).backward()
    missing = [name for name, p in built.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing
    with torch.no_grad():
        for size in ((24, 24), (32, 48), (29, 18)):
            assert built.eval()(torch.zeros(2, 3, *size)).shape == (2, 5, *size)


def test_the_encoder_is_the_runs_with_resampled_positions_and_without_class_token_in_the_decoder() -> None:
    model, card = network(VIT)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    same, larger = build(model, card, TINY.replace(crop=16, base=16), 5), build(model, card, TINY, 5)
    assert isinstance(same, Segmenter)
    assert isinstance(larger, Segmenter)
    assert all(torch.equal(value, before[name]) for name, value in same.encoder.state_dict().items())
    assert larger.encoder.pos_embed is not None
    assert larger.encoder.pos_embed.shape == (1, 1 + 36, 24)
    assert torch.equal(larger.encoder.pos_embed[:, :1], before["pos_embed"][:, :1])
    seen: list[Tensor] = []
    same.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.randn(1, 3, 16, 16, generator=stream())
    same.eval()(images)
    assert torch.equal(seen[0], model.forward_features(images)[:, 1:])  # type: ignore[operator]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_deeplab_starts_from_the_runs_weights_at_output_stride_8() -> None:
    model, card = network(RESNET)
    built = build(model, card, DEEPLAB, 5)
    encoder = built.eval().network.encoder  # type: ignore[union-attr]
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in encoder.model.state_dict().items())
    assert encoder(torch.zeros(1, 3, 64, 64))[-1].shape[-1] == 8
    logits, auxiliary = built.train()(torch.randn(2, 3, 32, 32))
    assert (logits.shape, auxiliary.shape) == ((2, 5, 32, 32), (2, 5, 4, 4))


@pytest.mark.parametrize(
    ("model", "recipe", "word"),
    [
        (RESNET, TINY, "VisionTransformer"),
        (VIT, DEEPLAB, "ResNet"),
        (VIT, TINY.replace(crop=22), "multiple of the patch"),
        (RESNET.replace(arguments={**RESNET.arguments, "cifar_stem": True}), DEEPLAB, "cifar_stem"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(model: Model, recipe: Recipe, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        build(*network(model), recipe, 5)


def test_loss_counts_pixels_that_count_and_weighs_the_auxiliary_head() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=stream())
    masks = torch.randint(0, 3, (2, 4, 4), generator=stream())
    masks[0] = IGNORE
    expected = nn.functional.cross_entropy(logits[1:], masks[1:])
    torch.testing.assert_close(seg.segmentation_loss(logits, masks), expected)
    torch.testing.assert_close(seg.segmentation_loss((logits, logits), masks), 1.4 * expected)
    assert float(seg.segmentation_loss(logits, torch.full_like(masks, IGNORE))) == 0.0


def test_crops_keep_image_and_mask_together_invent_no_label_and_reach_the_range() -> None:
    mask = torch.arange(40 * 30).remainder(251).view(40, 30).to(torch.uint8)
    recipe = TINY.replace(base=40, crop=16, scale_low=1.0, scale_high=1.0)
    for seed in range(20):
        image, labels = training_crop(mask.expand(3, -1, -1), mask, recipe, stream(seed))
        assert labels.shape == (16, 16)
        assert torch.equal(image, labels.expand(3, -1, -1))
    mask = torch.zeros(20, 30, dtype=torch.uint8)
    mask[5:15, 10:20] = 200
    crops = [training_crop(mask.expand(3, -1, -1), mask, TINY.replace(base=30, crop=200), stream(s)) for s in range(60)]
    assert all(set(labels.unique().tolist()) <= {0, 200} and image.shape[1:] == labels.shape for image, labels in crops)
    widths = [labels.shape[1] for _, labels in crops]
    assert 15 <= min(widths) < 20
    assert 54 < max(widths) <= 60


def test_a_crop_filled_by_one_class_is_drawn_again() -> None:
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[:, 32:] = 1
    recipe = TINY.replace(base=64, crop=16, scale_low=1.0, scale_high=1.0)
    mixed = [training_crop(mask.expand(3, -1, -1), mask, recipe, stream(s))[1].float().mean() for s in range(40)]
    # 8 of 49 positions qualify: without retries about 16 % would, with ten tries about 85 % do.
    assert sum(0.25 <= float(share) <= 0.75 for share in mixed) > 25


def test_an_epoch_visits_every_scene_once_and_small_scenes_are_padded() -> None:
    masks = torch.arange(6, dtype=torch.uint8).view(6, 1, 1).expand(6, 10, 14).contiguous()
    scenes = resident(masks[:, None].expand(6, 3, 10, 14), masks, tuple("abcdef"))
    recipe = TINY.replace(base=14, scale_low=1.0, scale_high=1.0, iterations=9, batch_size=2)
    crops = Crops(scenes, recipe, network(VIT)[1], seed=5)
    images, found = (torch.stack(parts) for parts in zip(*map(crops.__getitem__, range(len(crops))), strict=True))
    orders = found[:, 0, 0].view(3, 6)
    assert orders.sort(1).values.tolist() == [list(range(6))] * 3
    assert len(orders.unique(dim=0)) > 1
    assert images.shape == (18, 3, 24, 24)
    assert bool((found[:, 10:] == IGNORE).all() & (found[:, :, 14:] == IGNORE).all())
    assert not images[:, :, 10:].any()
    assert torch.equal(crops[3][0], images[3])


@BOTH
def test_the_same_weights_arguments_and_seed_give_the_same_numbers(model: Model, recipe: Recipe) -> None:
    pretrained, card = network(model)
    before = torch.get_rng_state()
    first = seg.drive(pretrained, card, {"recipe": recipe.to_dict()}, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    second = seg.drive(pretrained, card, {"recipe": recipe.to_dict()}, "cpu")
    torch.set_rng_state(before)
    assert first.values == second.values
    assert first.n_samples == 4
    assert set(first.values) == {"macc", "miou", "miou_ms"}
    assert all((first.arrays[name] == second.arrays[name]).all() for name in first.arrays)


def test_training_lowers_the_loss_of_a_scene_it_sees_all_the_time_and_its_seed_matters() -> None:
    pretrained, card = network(VIT)
    train = load_scenes("shapes")[0]
    image, mask = train[0]
    scenes = resident(image[None], mask[None], train.class_names)
    recipe = TINY.replace(iterations=40, lr=1e-2, drop_path=0.0, dropout=0.0, scale_low=1.0, scale_high=1.0)
    start = build(pretrained, card, recipe, 11).eval()
    end, other = (seg.fine_tune(pretrained, card | {"seed": seed}, recipe, scenes, "cpu") for seed in (3, 4))
    assert not torch.equal(end.decoder.class_tokens, other.decoder.class_tokens)  # type: ignore[union-attr, arg-type]
    pixels, mask = Crops(scenes, recipe, card, seed=0)[0]
    with torch.no_grad():
        losses = [float(seg.segmentation_loss(trained(pixels[None]), mask[None])) for trained in (start, end)]
    assert losses[1] < losses[0] / 2


@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(1, 40))
def test_metrics_equal_a_plain_reference(seed: int, classes: int, pixels: int) -> None:
    """mAcc and mIoU as mmseg defines them, by sets of pixels, one class at a time; NaN where a class has no say."""
    rng = np.random.default_rng(seed)
    prediction = rng.integers(0, rng.integers(1, classes + 1), pixels)  # often without the last classes
    truth = np.where(rng.random(pixels) < 0.2, IGNORE, rng.integers(0, rng.integers(1, classes + 1), pixels))
    truth[0] = 0
    ious, accuracies = [], []
    for c in range(classes):
        found, wanted = (prediction == c) & (truth != IGNORE), truth == c
        shared, union = (found & wanted).sum(), (found | wanted).sum()
        ious.append(shared / union if union else math.nan)
        accuracies.append(shared / wanted.sum() if wanted.any() else math.nan)
    matrix = seg.confusion(torch.tensor(prediction), torch.tensor(truth), classes)
    assert seg.class_means(matrix) == pytest.approx([100 * float(np.nanmean(each)) for each in (accuracies, ious)])
    assert int(matrix.sum()) == int((truth != IGNORE).sum())


SLIDING = Recipe("shapes", base=24, crop=16, stride=12)


def pointwise(images: Tensor) -> Tensor:
    """Each pixel by itself: windows cannot matter."""
    weight = torch.tensor([[1.0, -0.5, 0.2], [0.1, 0.9, -1.0], [-0.4, 0.3, 0.8], [0.2, 0.2, 0.2]])
    return conv2d(images, weight[:, :, None, None])


def edge_model(images: Tensor) -> Tensor:
    """Sees left and right differently, so that mirroring matters."""
    weight = torch.zeros(4, 3, 1, 3)
    weight[0, :, 0, 0], weight[1, :, 0, 2], weight[2, 0, 0, 1], weight[3, 1, 0, 1] = 1, 0.6, 1, -1
    return conv2d(images, weight, padding=(0, 1))


@pytest.mark.parametrize("size", [(16, 16), (16, 29), (40, 33)])
def test_sliding_equals_the_whole_image_for_a_pointwise_model(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, generator=stream())
    torch.testing.assert_close(slide(pointwise, images, 16, 12), pointwise(images))
    assert seg.window_starts(801, 480, 320) == [0, 320, 321]
    assert seg.target_size(375, 500, 520, 480) == (480, 640)  # 390 would be below the window
    assert seg.target_size(500, 375, 910, 480) == (910, 683)


def test_probabilities_sum_to_one_and_mirror_with_the_image() -> None:
    images = torch.randn(2, 3, 20, 30, generator=stream(1))
    for size in ((20, 30), (28, 42)):
        plain = probabilities(pointwise, images, size, False, SLIDING)
        torch.testing.assert_close(plain.sum(1), torch.ones(2, 20, 30))
        torch.testing.assert_close(probabilities(pointwise, images, size, True, SLIDING), plain)
    with pytest.raises(ValueError, match=r"gives NaN.*lower Recipe.lr"):
        segment(lambda images: images * math.nan, torch.zeros(1, 3, 16, 16), SLIDING)


def test_logits_go_back_to_the_size_of_the_image_before_their_softmax() -> None:
    images = torch.randn(1, 3, 45, 60, generator=stream(3))
    size = seg.target_size(45, 60, SLIDING.base, SLIDING.crop)
    seen = interpolate(images, size, mode="bilinear", align_corners=False)
    logits = interpolate(4 * slide(edge_model, seen, 16, 12), (45, 60), mode="bilinear", align_corners=False)
    found = probabilities(lambda crops: 4 * edge_model(crops), images, size, False, SLIDING)
    torch.testing.assert_close(found, logits.softmax(1))
    assert torch.equal(segment(lambda crops: 4 * edge_model(crops), images, SLIDING)[0], logits.argmax(1))


def test_ratios_of_equal_size_weigh_as_often_as_they_occur_and_are_computed_once() -> None:
    images, sizes = torch.randn(1, 3, 16, 16, generator=stream(2)), []

    def counting(crops: Tensor) -> Tensor:
        sizes.append(tuple(crops.shape))
        return edge_model(crops)

    recipe = SLIDING.replace(base=16)
    _, several = segment(counting, images, recipe)  # 0.5, 0.75 and 1 all give 16x16
    assert sizes.count((1, 3, 16, 16)) == 2
    total = torch.zeros(1, 4, 16, 16)
    for ratio in seg.RATIOS:
        for flip in (False, True):
            total += probabilities(edge_model, images, seg.target_size(16, 16, 16 * ratio, 16), flip, recipe)
    assert torch.equal(several, total.argmax(1))


class ByBrightness(nn.Module):
    """Class 1 where the first channel is above its mean."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack((-images[:, 0], images[:, 0]), dim=1)


def test_score_of_a_perfect_model_is_100_counts_its_images_and_does_not_depend_on_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = torch.randint(0, 2, (5, 16, 16), generator=stream(4), dtype=torch.uint8)
    images = (masks * 200)[:, None].expand(-1, 3, -1, -1).contiguous()
    masks[:, 0] = IGNORE
    scenes, card = resident(images, masks, ("ground", "thing")), {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)}
    outcome = seg.score(ByBrightness(), scenes, SLIDING.replace(base=16, test_size=3), card, "cpu")
    assert outcome.values["macc"] == outcome.values["miou"] == 100.0
    assert outcome.n_samples == 3
    assert int(outcome.arrays["confusion"].sum()) == 3 * 15 * 16
    assert (outcome.arrays["examples"][2][1:] == masks[2][1:].numpy()).all()
    whole = seg.score(ByBrightness(), scenes, SLIDING, card, "cpu")
    monkeypatch.setattr(seg, "PIXELS", 1)
    single = seg.score(ByBrightness(), scenes, SLIDING, card, "cpu")
    assert (whole.values, whole.n_samples) == (single.values, single.n_samples) == (single.values, 5)


def test_camvid_is_read_from_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"camvid.train holds no images.*LUMIX_DATA"):
        load_scenes("camvid")
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for split in ("train", "test"):
        for folder in (split, f"{split}annot"):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
        Image.new("RGB", (4, 3), (200, 10, 10)).save(tmp_path / "camvid" / split / "a.jpg")
        Image.fromarray(labels).save(tmp_path / "camvid" / f"{split}annot" / "a.png")
    train, test = load_scenes("camvid")
    assert (len(train), len(test), train.num_classes, train.class_names[0]) == (1, 1, 11, "sky")
    image, mask = test[0]
    assert (image.shape, image.dtype) == ((3, 3, 4), torch.uint8)
    assert mask.flatten().tolist() == [*range(11), IGNORE]  # 11 is what is not labelled


def test_pascal_context_is_read_from_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"pascal_context.*train.txt.*LUMIX_DATA"):
        load_scenes("pascal_context")
    images, masks, lists = (tmp_path / "pascal_context" / name for name in CONTEXT_FOLDERS)
    for folder in (images, masks, lists):
        folder.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[0, 0], labels[1, 1] = 59, IGNORE
    for name, wrong in (("a", labels + 60), ("b", labels[:4]), ("c", labels)):
        Image.new("RGB", (8, 6), (200, 10, 10)).save(images / f"{name}.jpg")
        Image.fromarray(wrong).save(masks / f"{name}.png")
    train, test = load_scenes("pascal_context")
    assert (len(train), len(test), train.num_classes) == (2, 1, 60)
    image, mask = test[0]
    assert image.shape == (3, 6, 8)
    assert int(image[0].float().mean()) > 150
    assert torch.equal(mask, torch.from_numpy(labels))
    with pytest.raises(ValueError, match=r"a\.png has the value 119, no class of 60"):
        train[0]
    with pytest.raises(ValueError, match=r"b\.png holds uint8 \[4, 8\] and .*b\.jpg is \[6, 8\]"):
        train[1]
    (masks / "a.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a mask"):
        train[0]


def test_a_recipe_that_makes_no_sense_is_refused() -> None:
    wrong: dict[str, Any] = {"data": "coco", "stride": 481, "iterations": 0, "dropout": 1.5, "scale_high": 0.1}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"Recipe.{name}"):
            Recipe("pascal_context").replace(**{name: value})
