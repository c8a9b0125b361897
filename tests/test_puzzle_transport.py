"""Puzzle-Mix's transport: equal to the published dense rounds wherever a pixel shows, its laws, its application."""

import pytest
import torch
from batches import stream
from puzzle_cases import puzzle_batch, reference, smooth

from lumix.mixers.puzzle_cut import saliency_share
from lumix.mixers.puzzle_transport import transport, transport_plan


def instance(size, side, seed, spread=4.0, levels=3):
    """A mask of `levels` shares and positive shares of saliency [B, n, n] float32."""
    generator = stream(seed)
    mask = torch.randint(levels, (size, side, side), generator=generator).float() / (levels - 1)
    if seed % 2:  # masks of real runs hang together
        mask = (smooth(generator, size, 1, side, side, coarse=2)[:, 0] * levels).floor().clamp(max=levels - 1)
        mask /= levels - 1
    saliency = torch.exp(spread * torch.rand(size, side, side, generator=generator))
    return mask, saliency / saliency.sum((1, 2), keepdim=True)


def published(mask, share, eps):
    """Source of each target [B, cells] by dense rounds, -1 where none won."""
    matrix = reference.transport_matrix(mask, share, eps)
    assert (matrix.sum(1) <= 1).all()
    return torch.where(matrix.sum(1) > 0, matrix.argmax(1), -1)


# ------------------------------------------------------------------------------------------------- plan


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.2, 0.8, 10.0])
@pytest.mark.parametrize("side", [2, 3, 4, 8, 16])
def test_plan_is_the_published_one_wherever_the_image_shows(side, eps):
    """Ties included: distances on a grid tie all the time. With eps 0 all want one target, and the rounds run out."""
    for seed in range(8):
        mask, share = instance(4, side, seed, spread=(1.0, 4.0, 8.0)[seed % 3], levels=2 + seed % 2)
        plan, expected = transport_plan(mask > 0, share, eps), published(mask, share, eps)
        visible = (mask > 0).flatten(1)
        assert torch.equal(plan[visible], expected[visible])
        assert (plan[~visible] == -1).all()


@pytest.mark.parametrize("side", [4, 8])
def test_equal_shares_are_settled_as_published(side):
    """Shares of a few sizes: equal costs of different cells, where the first cell wins."""
    for seed in range(10):
        generator = stream(seed)
        mask = torch.randint(2, (5, side, side), generator=generator).float()
        share = torch.randint(1, 4, (5, side, side), generator=generator).float() ** 3
        share /= share.sum((1, 2), keepdim=True)
        visible = (mask > 0).flatten(1)
        plan = transport_plan(mask > 0, share, 0.1)
        assert torch.equal(plan[visible], published(mask, share, 0.1)[visible])
        assert (plan[visible] != torch.arange(side**2).expand(5, -1)[visible]).any()


def test_fewer_rounds_are_enough_when_nobody_has_a_claim_left():
    mask, share = instance(6, 8, 1)
    assert torch.equal(transport_plan(mask > 0, share, 0.8), transport_plan(mask > 0, share, 0.8, rounds=10**9))


@pytest.mark.parametrize("side", [2, 4, 8, 16, 7])
def test_every_visible_target_has_one_source_and_no_source_two_targets(side):
    for seed in range(6):
        mask, share = instance(5, side, seed, spread=2.0 * seed)
        visible, plan = (mask > 0).flatten(1), transport_plan(mask > 0, share, 0.3)
        assert torch.equal(plan >= 0, visible)
        assert int(plan.max()) < side**2
        for sources in plan:
            used = sources[sources >= 0]
            assert len(used.unique()) == len(used)


@pytest.mark.parametrize("eps", [0.05, 0.8])
def test_a_wholly_visible_image_stays_and_a_hidden_one_has_no_plan(eps):
    share = instance(3, 4, 0)[1]
    everywhere = torch.ones(3, 4, 4, dtype=torch.bool)
    assert torch.equal(transport_plan(everywhere, share, eps), torch.arange(16).expand(3, -1))
    assert torch.equal(transport_plan(~everywhere, share, eps), torch.full((3, 16), -1))


def test_no_move_costs_more_than_it_shows():
    """Each shown cell is worth at least what the one in its place was worth, the way included."""
    side, eps = 8, 0.4
    mask, share = instance(10, side, 3, spread=6.0)
    plan, flat = transport_plan(mask > 0, share, eps), share.flatten(1)
    place = torch.stack([torch.arange(side**2) // side, torch.arange(side**2) % side], 1)
    moved = 0
    for sources, value in zip(plan, flat, strict=True):
        for target, source in enumerate(sources.tolist()):
            if source >= 0:
                way = eps * (place[target] - place[source]).square().sum() / (side - 1) ** 2
                assert value[source] - way >= value[target] - 1e-7
                moved += source != target
    assert moved > 20


def test_a_hidden_salient_cell_takes_the_place_of_a_dull_one_which_is_dropped():
    share = torch.tensor([[[0.7, 0.1], [0.1, 0.1]]])
    visible = torch.tensor([[[False, True], [False, True]]])
    # nearest visible target of cell 0 is cell 1: 0.2 * 1 - 0.7 beats -0.1; cell 2 (0.2 - 0.1 > 0) stays away from 3
    assert transport_plan(visible, share, 0.2).tolist() == [[-1, 0, -1, 3]]
    assert transport_plan(visible, share, 0.61).tolist() == [[-1, 1, -1, 3]]


def test_a_loser_goes_to_its_next_choice():
    share = torch.tensor([[[0.30, 0.01, 0.01], [0.28, 0.01, 0.01], [0.36, 0.01, 0.01]]])
    visible = torch.tensor([[[False, True, False], [False, False, False], [False, True, True]]])
    # cell 3 is as near to 1 as to 7, and behind cell 0 at the one, cell 6 at the other; then 8 is left to it
    plan = transport_plan(visible, share, 0.1)[0]
    assert (plan[1], plan[7], plan[8]) == (0, 6, 3)


def test_cells_without_saliency_stay_where_they_show():
    """The published rule leaves their places empty, which would be black patches in the mixed image."""
    share = torch.zeros(2, 4, 4)
    share[0, 0, 0] = 1.0
    visible = torch.ones(2, 4, 4, dtype=torch.bool)
    visible[:, 0, 0] = False
    plan = transport_plan(visible, share, 0.8)
    assert torch.equal(plan[1, 1:], torch.arange(1, 16))
    assert plan[0].tolist() == [-1, 0, *range(2, 16)]  # the one salient cell takes the next place
    empty = published(visible.float(), share, 0.8)[1, 1:]
    assert (empty == -1).any()


def test_images_are_planned_each_for_itself():
    mask, share = instance(5, 8, 1)
    plan = transport_plan(mask > 0, share, 0.3)
    for i in range(5):
        assert torch.equal(plan[i : i + 1], transport_plan(mask[i : i + 1] > 0, share[i : i + 1], 0.3))


def test_shares_in_double_and_inputs_untouched():
    mask, share = instance(5, 8, 1)
    visible, before = mask > 0, share.clone()
    assert torch.equal(transport_plan(visible, share.double(), 0.3), transport_plan(visible, share, 0.3))
    assert torch.equal(share, before)
    assert torch.equal(visible, mask > 0)


# ------------------------------------------------------------------------------------------------- application


def test_cells_of_a_small_image_by_hand():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    moved = transport(image, torch.tensor([[3, -1, 0, 2]]), 2)
    assert moved[0, 0].tolist() == [[10, 11, 0, 0], [14, 15, 0, 0], [0, 1, 8, 9], [4, 5, 12, 13]]
    assert torch.equal(image, torch.arange(16.0).view(1, 1, 4, 4))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("side", "cell", "channels"), [(32, 4, 3), (32, 16, 1), (16, 2, 4), (8, 1, 3)])
def test_one_gather_is_the_product_with_the_plans_matrix(side, cell, channels, dtype, layout):
    images = puzzle_batch(4, side, channels)[0].to(dtype).contiguous(memory_format=layout)
    mask, share = instance(4, side // cell, 5)
    plan = transport_plan(mask > 0, share, 0.2)
    matrix = torch.zeros(4, plan.shape[1], plan.shape[1])
    image, target = (plan >= 0).nonzero(as_tuple=True)
    matrix[image, plan[image, target], target] = 1
    expected = reference.apply_matrix(images.float(), matrix, cell)
    assert torch.equal(transport(images, plan, cell).float(), expected.to(dtype).float())


def test_cells_that_do_not_tile_the_image_are_refused():
    with pytest.raises(ValueError, match="patches of side 3 do not tile an image of 4 x 4"):
        transport(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, dtype=torch.int64), 3)


def test_shares_on_the_grid_of_the_cells_that_move():
    saliency = puzzle_batch(3, 16)[3]
    assert torch.allclose(saliency_share(saliency, 4), torch.from_numpy(reference.saliency_shares(saliency, 4)))
