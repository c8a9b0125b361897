"""Every paper-scale run can be expressed: its network, optimizer and schedule are built on the meta device."""

import copy
import math
from functools import cache
from typing import Any

import pytest
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from experiments.dm_with_lumix.table import SMOOTHING
from experiments.methods import PLAIN, lumix, smoothed
from experiments.registry import TABLES, get_table, owners
from experiments.scale import get_scale
from lumix.registry import name_of
from training.build import build_mixer, build_task
from training.config import Mix, Run
from training.data.feeds import updates_per_epoch
from training.models import build_model
from training.optim import build_optimizer, build_schedule, parameter_groups

IMAGES = {
    "imagenet": 1_281_167,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "tiny_imagenet": 100_000,
    "cub200": 5994,
    "aircraft": 6667,
    "cars": 8144,
}
RECIPES = {  # (data, optimizer or role) -> peak rate, smoothing, updates an epoch
    ("imagenet", "adamw"): (1e-3, 0.1, 1251),
    ("imagenet", "sgd"): (0.1, 0.0, 5004),
    ("imagenet", "momentum"): (0.1, 0.0, 5004),
    ("imagenet", "lamb"): (8e-3, 0.0, 625),
    ("cifar10", "sgd"): (0.03, 0.0, 1024),
    ("cifar100", "sgd"): (0.03, 0.0, 1024),
    ("cifar100", "momentum"): (0.1, 0.0, 500),
    ("cifar100", "wrn28_8"): (0.03, 0.0, 500),
    ("tiny_imagenet", "momentum"): (0.2, 0.0, 1000),
    ("cub200", "momentum"): (1e-3, 0.0, 374),
    ("aircraft", "momentum"): (1e-3, 0.0, 416),
    ("cub200", "sgd"): (1e-3, 0.0, 1000),
    ("cars", "sgd"): (1e-3, 0.0, 1000),
    ("aircraft", "sgd"): (1e-3, 0.0, 1000),
}


@cache
def unique_runs() -> dict[str, Run]:
    scale = get_scale("paper")
    tables = [get_table(name, scale) for name in filter(scale.has, TABLES)]
    runs = {run.key: run for table in tables for row in table.rows for run in row.runs.values()}
    assert set(runs) == set(owners(scale))
    return runs


@cache
def network(model_json: str) -> nn.Module:
    run = next(run for run in unique_runs().values() if str(run.model) == model_json)
    with torch.device("meta"):
        return build_model(run.model, 1000, 3, run.data.image_size, seed=0)


def lr_at(run: Run, optimizer: torch.optim.Optimizer, update: int, updates: int) -> float:
    build_schedule(run.optim, optimizer, run.epochs, updates).step_update(update)
    rates = {group["lr"] for group in optimizer.param_groups}
    assert len(rates) == 1
    return rates.pop()


@pytest.mark.parametrize("key", sorted(unique_runs()))
def test_a_paper_run_builds_with_its_schedule(key: str) -> None:
    run = unique_runs()[key]
    model = network(str(run.model))
    optimizer = build_optimizer(run.optim, parameter_groups(model))
    updates = updates_per_epoch(round(IMAGES[run.data.name] * run.data.share), run)
    of_role = RECIPES.get((run.data.name, run.model.role))  # SGD on ImageNet is DeepLabV3+'s encoder's
    recipe = None if run.data.labels else of_role
    peak, smoothing, expected = recipe or RECIPES[run.data.name, run.optim.name]
    assert updates == round(expected * run.data.share)
    warmup, total = run.optim.warmup_epochs * updates, run.epochs * updates
    assert lr_at(run, optimizer, warmup, updates) == pytest.approx(peak)
    last = run.optim.min_lr if run.optim.schedule == "cosine" else peak * math.cos(7 * math.pi / 16)
    assert lr_at(run, optimizer, total - 1, updates) == pytest.approx(last, abs=1e-6 if run.data.labels else 1e-9)
    assert (warmup == 0) == (run.optim.name in ("sgd", "momentum"))
    if warmup:
        assert lr_at(run, optimizer, 0, updates) == pytest.approx(1e-6)
        assert lr_at(run, optimizer, warmup // 2, updates) == pytest.approx((1e-6 + peak) / 2, rel=1e-3)
    if name_of(run.task) != "mix":
        run = run.replace(optim=run.optim.replace(ema_decay=0.0, ema_reported=False))  # no average without memory
        task: Any = build_task(run, copy.deepcopy(model), (0.5,) * 3, (0.5,) * 3, torch.device("meta"), updates=1)
        assert task.criterion.smoothing == {smoothing}
        if run.data.labels:
            assert task.updates == 1
            return
        assert "block" in {name.partition(".")[0] for name, _ in task.learner.named_parameters()}
        return
    frozen = torch.nn.Identity()  # Attentive-CutMix fetches its network's weights, which a test cannot
    build_mixer(run.mix, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, frozen)
    plain = run.replace(mix=Mix(), optim=run.optim.replace(ema_decay=0.0, ema_reported=False))
    task = build_task(plain, model, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, torch.device("meta"))
    ours = [
        *(smoothed(run.replace(loss=PLAIN), value).loss for value in SMOOTHING),
        lumix(run.replace(loss=PLAIN)).loss,
    ]
    assert task.criterion.smoothing == {smoothing} or run.loss in ours


@pytest.mark.parametrize("key", sorted({str(run.model): key for key, run in unique_runs().items()}.values()))
def test_weight_decay_spares_what_the_recipe_spares(key: str) -> None:
    run = unique_runs()[key]
    model = network(str(run.model))
    optimizer = build_optimizer(run.optim, parameter_groups(model))
    decayed = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: decayed[id(parameter)] for name, parameter in model.named_parameters()}
    all_decay = run.optim.decayed == "all"
    assert set(names.values()) == {run.optim.weight_decay} | (set() if all_decay else {0.0})
    spared = ("bias", "norm", "cls_token", "pos_embed", "relative_position_bias_table", "temperature", "gamma")
    for name, parameter in model.named_parameters():
        expected_spared = not all_decay and (parameter.ndim <= 1 or any(word in name for word in spared))
        assert (names[name] == 0.0) == expected_spared, name
