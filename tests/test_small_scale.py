"""The scale small: reduced photographs, its net, its tables, and what it refuses."""

import pytest
import torch

from experiments.registry import get_table, seeds_of, tables_of
from experiments.scale import get_scale
from training.config import Data
from training.data.sets import digits, load, shapes
from training.models import build_model

SMALL = get_scale("small")


def test_an_image_is_reduced_to_the_means_of_its_squares() -> None:
    whole, _ = digits()
    reduced, _ = load(Data("digits", image_size=4))
    expected = whole.images.float().unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5)).round()
    assert torch.equal(reduced.images, expected.to(torch.uint8))
    assert torch.equal(reduced.labels, whole.labels)


def test_images_with_masks_are_not_reduced() -> None:
    with pytest.raises(ValueError, match="images with masks or boxes cannot be reduced"):
        shapes(4, seed=0).reduced(2)


def test_the_net_has_a_stem_as_wide_as_its_first_stage() -> None:
    run = SMALL.base("cifar100", "resnet18")
    network = build_model(run.model, 100, 3, 16, seed=0)
    assert network.get_parameter("conv1.weight").shape == (32, 3, 3, 3)
    assert 0.3e6 < sum(parameter.numel() for parameter in network.parameters()) < 1.5e6
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 100)


def test_it_has_its_tables_only_and_the_headlines_have_eight_seeds() -> None:
    assert [table.id for table in tables_of(SMALL)] == list(SMALL.tables)
    together, limited = get_table("dm_with_lumix", SMALL), get_table("dm_table08_limited_labels", SMALL)
    for cell in (("cutmix", "top1"), ("lumix", "top1")):
        assert len(seeds_of(SMALL, together.cells[cell])) == 8
    assert len(seeds_of(SMALL, together.cells["constant", "top1"])) == 5
    assert len(seeds_of(SMALL, limited.cells["mixup_15", "dm_ce"])) == 8
    assert ("mixup_30", "mce") not in limited.cells
    with pytest.raises(ValueError, match="scale small has no table lumix_table01_models: it has dm_table08"):
        get_table("lumix_table01_models", SMALL)
