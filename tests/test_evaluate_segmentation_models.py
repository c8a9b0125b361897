"""Segmentation models, data and fine-tuning: contracts of the decoders, crops, reproducibility, what files may be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from evaluation.segmentation.data import IGNORE, ResidentScenes, load_scenes
from evaluation.segmentation.models import MaskTransformer, Segmenter, build
from evaluation.segmentation.recipe import Recipe
from evaluation.segmentation.scoring import drive
from evaluation.segmentation.training import Crops, distorted, fine_tune, segmentation_loss, training_crop
from training.config import Model
from training.models import build_model

VIT = Model(
    "deit_s",
    "deit_small_patch16_224",
    {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2.0},
    init="small",
)
RESNET = Model("resnet50", "resnet50", {"channels": [4, 8, 16, 32], "layers": [1, 1, 1, 1]})
TINY = Recipe(
    "shapes",
    base=24,
    crop=24,
    stride=16,
    iterations=3,
    batch_size=4,
    photometric=False,
    test_size=4,
    width=8,
    dilation=1,
)
DEEPLAB = TINY.replace(decoder="deeplabv3plus", base=32, crop=32)


def network(model: Model) -> tuple[nn.Module, dict[str, Any]]:
    """A network as a run leaves it, and its card."""
    card = {"model": model.to_dict(), "in_chans": 3, "image_size": 16, "num_classes": 10, "seed": 3}
    card |= {"mean": [0.3, 0.3, 0.4], "std": [0.25, 0.2, 0.1]}
    return build_model(model, 10, 3, 16, seed=0).eval(), json.loads(json.dumps(card))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------- models


def test_decoder_has_the_shapes_parameters_and_bounds_of_its_contract() -> None:
    decoder = MaskTransformer(width=384, heads=6, num_classes=60).eval()
    scores = decoder(torch.randn(2, 9, 384, generator=generator()))
    assert scores.shape == (2, 9, 60)
    block = 12 * 384**2 + (3 + 1 + 4 + 1) * 384 + 4 * 384  # matrices, biases, two norms
    assert sum(p.numel() for p in decoder.parameters()) == (
        384**2 + 384 + 60 * 384 + 2 * block + 2 * 384 + 2 * 384**2 + 2 * 60
    )
    # The last norm makes the scores of a patch mean 0 and variance 1; before it they are cosines.
    torch.testing.assert_close(scores.mean(2), torch.zeros(2, 9), atol=1e-5, rtol=0)
    decoder.score_norm = nn.Identity()  # type: ignore[assignment]
    assert decoder(torch.randn(2, 9, 384, generator=generator())).abs().max() <= 1 + 1e-6


def test_patches_may_come_in_any_order() -> None:
    decoder = MaskTransformer(24, 3, 5, small=True).eval()
    patches, order = torch.randn(1, 8, 24, generator=generator()), torch.randperm(8, generator=generator())
    torch.testing.assert_close(decoder(patches[:, order]), decoder(patches)[:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("model", "recipe"), [(VIT, TINY), (RESNET, DEEPLAB)])
def test_every_parameter_that_is_used_gets_a_gradient(model: Model, recipe: Recipe) -> None:
    built = build(*network(model), recipe, 5).train()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm begins residual branches at zero, which lets no gradient through
    images = torch.randn(2, 3, recipe.crop, recipe.crop, generator=generator())
    masks = torch.randint(0, 5, (2, recipe.crop, recipe.crop), generator=generator())
    segmentation_loss(built(images), masks).backward()
    missing = [name for name, p in built.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing


@pytest.mark.parametrize(("model", "recipe"), [(VIT, TINY), (RESNET, DEEPLAB)])
@pytest.mark.parametrize("size", [(24, 24), (32, 48), (29, 18)])
def test_logits_have_the_size_of_the_image(model: Model, recipe: Recipe, size: tuple[int, int]) -> None:
    built = build(*network(model), recipe, 5).eval()
    with torch.no_grad():
        assert built(torch.zeros(2, 3, *size)).shape == (2, 5, *size)


def test_padding_to_whole_patches_is_padding_by_zeros_cut_off_again() -> None:
    built = build(*network(VIT), TINY, 5).eval()
    images = torch.randn(1, 3, 21, 23, generator=generator())
    padded = torch.zeros(1, 3, 24, 24)
    padded[:, :, :21, :23] = images
    with torch.no_grad():
        torch.testing.assert_close(built(images), built(padded)[:, :, :21, :23])


def test_the_encoder_is_the_runs_with_resampled_positions_and_without_class_token_in_the_decoder() -> None:
    model, card = network(VIT)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    same = build(model, card, TINY.replace(crop=16, base=16), 5)
    larger = build(model, card, TINY, 5)
    assert isinstance(same, Segmenter)
    assert isinstance(larger, Segmenter)
    for name, value in same.encoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert larger.encoder.pos_embed is not None
    assert larger.encoder.pos_embed.shape == (1, 1 + 36, 24)
    assert torch.equal(larger.encoder.pos_embed[:, :1], before["pos_embed"][:, :1])
    seen: list[Tensor] = []
    same.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.randn(1, 3, 16, 16, generator=generator())
    same.eval()(images)
    assert torch.equal(seen[0], model.forward_features(images)[:, 1:])  # type: ignore[operator]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_deeplab_starts_from_the_runs_weights_at_output_stride_8() -> None:
    model, card = network(RESNET)
    built = build(model, card, DEEPLAB, 5).eval()
    encoder = built.network.encoder
    for name, value in encoder.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    assert encoder(torch.zeros(1, 3, 64, 64))[-1].shape[-1] == 8
    logits, auxiliary = build(model, card, DEEPLAB, 5).train()(torch.randn(2, 3, 32, 32))
    assert (logits.shape, auxiliary.shape) == ((2, 5, 32, 32), (2, 5, 4, 4))


@pytest.mark.parametrize(
    ("model", "recipe", "word"),
    [
        (RESNET, TINY, "VisionTransformer"),
        (VIT, DEEPLAB, "ResNet"),
        (VIT, TINY.replace(crop=22), "multiple of the patch"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(model: Model, recipe: Recipe, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        build(*network(model), recipe, 5)


def test_deeplab_needs_the_ordinary_stem() -> None:
    with pytest.raises(ValueError, match="cifar_stem"):
        build(*network(RESNET.replace(arguments={**RESNET.arguments, "cifar_stem": True})), DEEPLAB, 5)


# ------------------------------------------------------------------------------------------------- training


def test_loss_counts_pixels_that_count_and_weighs_the_auxiliary_head() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=generator())
    masks = torch.randint(0, 3, (2, 4, 4), generator=generator())
    masks[0] = IGNORE
    expected = nn.functional.cross_entropy(logits[1:], masks[1:])
    torch.testing.assert_close(segmentation_loss(logits, masks), expected)
    torch.testing.assert_close(segmentation_loss((logits, logits), masks), 1.4 * expected)
    assert float(segmentation_loss(logits, torch.full_like(masks, IGNORE))) == 0.0


def test_crops_keep_image_and_mask_together() -> None:
    mask = torch.arange(40 * 30).remainder(251).view(40, 30).to(torch.uint8)
    recipe = TINY.replace(base=40, crop=16, scale_low=1.0, scale_high=1.0)
    for seed in range(20):
        image, labels = training_crop(mask.expand(3, -1, -1), mask, recipe, generator(seed))
        assert labels.shape == (16, 16)
        assert torch.equal(image, labels.expand(3, -1, -1))


def test_resizing_invents_no_label_and_reaches_the_range() -> None:
    mask = torch.zeros(20, 30, dtype=torch.uint8)
    mask[5:15, 10:20] = 200
    recipe = TINY.replace(base=30, crop=200, scale_low=0.5, scale_high=2.0)
    widths = []
    for seed in range(60):
        image, labels = training_crop(mask.expand(3, -1, -1), mask, recipe, generator(seed))
        assert set(labels.unique().tolist()) <= {0, 200}
        assert image.shape[1:] == labels.shape
        widths.append(labels.shape[1])
    assert 15 <= min(widths) < 20
    assert 54 < max(widths) <= 60


def test_a_crop_filled_by_one_class_is_drawn_again() -> None:
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[:, 32:] = 1
    recipe = TINY.replace(base=64, crop=16, scale_low=1.0, scale_high=1.0)
    mixed = [training_crop(mask.expand(3, -1, -1), mask, recipe, generator(s))[1].float().mean() for s in range(40)]
    # 8 of 49 positions qualify: without retries about 16 % would, with ten tries about 85 % do.
    assert sum(0.25 <= float(share) <= 0.75 for share in mixed) > 25


def test_distortion_keeps_type_and_shape_varies_and_leaves_its_input_alone() -> None:
    image = torch.randint(0, 256, (3, 8, 8), generator=generator(), dtype=torch.uint8)
    copy = image.clone()
    results = [distorted(image, generator(seed)) for seed in range(12)]
    assert all(result.dtype == torch.uint8 and result.shape == image.shape for result in results)
    assert len({result.numpy().tobytes() for result in results}) > 8
    assert torch.equal(image, copy)


def test_an_epoch_visits_every_scene_once_and_small_scenes_are_padded() -> None:
    masks = torch.arange(6, dtype=torch.uint8).view(6, 1, 1).expand(6, 10, 14).contiguous()
    scenes = ResidentScenes(masks[:, None].expand(6, 3, 10, 14), masks, 6)
    recipe = TINY.replace(base=14, scale_low=1.0, scale_high=1.0, iterations=9, batch_size=2)
    crops = Crops(scenes, recipe, network(VIT)[1], seed=5)
    assert len(crops) == 18
    orders = []
    for epoch in range(3):
        seen = [crops[position] for position in range(6 * epoch, 6 * epoch + 6)]
        orders.append([int(mask[0, 0]) for _, mask in seen])
        assert sorted(orders[-1]) == list(range(6))
        for pixels, mask in seen:
            assert pixels.shape == (3, 24, 24)
            assert bool((mask[10:] == IGNORE).all())
            assert bool((mask[:, 14:] == IGNORE).all())
            assert not pixels[:, 10:].any()
    assert len({tuple(order) for order in orders}) > 1
    assert torch.equal(crops[3][0], crops[3][0])


@pytest.mark.parametrize(("model", "recipe"), [(VIT, TINY.replace(drop_path=0.3)), (RESNET, DEEPLAB)])
def test_the_same_weights_arguments_and_seed_give_the_same_numbers(model: Model, recipe: Recipe) -> None:
    pretrained, card = network(model)
    before = torch.get_rng_state()
    first = drive(pretrained, card, {"recipe": recipe.to_dict()}, "cpu")
    torch.manual_seed(99)
    second = drive(pretrained, card, {"recipe": recipe.to_dict()}, "cpu")
    torch.set_rng_state(before)
    assert first.values == second.values
    assert first.n_samples == 4
    assert set(first.values) == {"macc", "miou", "miou_ms"}
    assert all((first.arrays[name] == second.arrays[name]).all() for name in first.arrays)


def test_seed_and_weights_matter_and_the_global_generator_does_not_move() -> None:
    pretrained, card = network(VIT)
    scenes = load_scenes("shapes")[0]
    state = torch.get_rng_state()
    first, again = (fine_tune(pretrained, card, TINY, scenes, "cpu").state_dict() for _ in range(2))
    other = fine_tune(pretrained, card | {"seed": 4}, TINY, scenes, "cpu").state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["decoder.class_tokens"], other["decoder.class_tokens"])


def test_training_lowers_the_loss_of_a_scene_it_sees_all_the_time() -> None:
    pretrained, card = network(VIT)
    train = load_scenes("shapes")[0]
    scenes = ResidentScenes(train.images[:1], train.masks[:1], 11)  # type: ignore[attr-defined]
    recipe = TINY.replace(iterations=40, lr=1e-2, drop_path=0.0, dropout=0.0, scale_low=1.0, scale_high=1.0)
    losses = []
    for trained in (build(pretrained, card, recipe, 11).eval(), fine_tune(pretrained, card, recipe, scenes, "cpu")):
        pixels, mask = Crops(scenes, recipe, card, seed=0)[0]
        with torch.no_grad():
            losses.append(float(segmentation_loss(trained(pixels[None]), mask[None])))
    assert losses[1] < losses[0] / 2


# ------------------------------------------------------------------------------------------------- data and recipe


def test_shapes_have_a_class_for_every_pixel() -> None:
    train, test = load_scenes("shapes")
    assert train.num_classes == len(train.class_names) == 11
    for scenes in (train, test):
        masks = scenes.masks  # type: ignore[attr-defined]
        assert set(masks.unique().tolist()) == set(range(11))
        assert ((masks > 0).flatten(1).any(1)).all()


@pytest.mark.data
def test_camvid_is_read_whole(real_data: Path) -> None:
    train, test = load_scenes("camvid")
    assert (len(train), len(test), train.num_classes) == (367, 233, 11)
    assert train.class_names[0] == "sky"
    image, mask = train[0]
    assert (image.shape, mask.shape, image.dtype) == ((3, 180, 240), (180, 240), torch.uint8)
    assert set(test.masks.unique().tolist()) == {*range(11), IGNORE}  # type: ignore[attr-defined]
    # The sky is above the road, so image and mask are the right way up.
    rows = torch.arange(180.0).view(-1, 1).expand(180, 240)
    assert rows[mask == 0].mean() < rows[mask == 3].mean()


def test_missing_data_name_the_file_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"camvid/train holds no images.*LUMIX_DATA"):
        load_scenes("camvid")
    with pytest.raises(ValueError, match=r"pascal_context.*train.txt.*LUMIX_DATA"):
        load_scenes("pascal_context")


def test_pascal_context_is_read_from_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMIX_DATA", str(tmp_path))
    root = tmp_path / "pascal_context"
    images, masks, lists = (
        root / name for name in ("JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext")
    )
    for folder in (images, masks, lists):
        folder.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[0, 0], labels[1, 1] = 59, IGNORE
    for name in "abc":
        Image.new("RGB", (8, 6), (200, 10, 10)).save(images / f"{name}.jpg")
        Image.fromarray(labels).save(masks / f"{name}.png")
    train, test = load_scenes("pascal_context")
    assert (len(train), len(test), train.num_classes) == (2, 1, 60)
    image, mask = train[1]
    assert image.shape == (3, 6, 8)
    assert int(image[0].float().mean()) > 150
    assert torch.equal(mask, torch.from_numpy(labels))
    Image.fromarray(labels + 60).save(masks / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has the value"):
        train[0]
    Image.fromarray(labels[:4]).save(masks / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is 8x4 and .*a\.jpg is 8x6"):
        train[0]
    (masks / "a.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a mask"):
        train[0]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data": "coco"}, "Recipe.data"),
        ({"decoder": "fcn"}, "Recipe.decoder"),
        ({"stride": 481}, "Recipe.stride 481"),
        ({"iterations": 0}, "Recipe.iterations"),
        ({"dropout": 1.5}, "Recipe.dropout"),
        ({"scale_low": 3.0}, "Recipe.scale_high"),
        ({"lr": -1.0}, "Recipe.lr"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Recipe("pascal_context").replace(**changes)
