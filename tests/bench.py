"""A scale of stand-ins on which every table can be built and nothing is trained, and what `fit` leaves behind."""

from functools import partial
from pathlib import Path

from evaluation.arguments import Recipe
from evaluation.evaluation import Evaluation, fingerprint
from experiments.learning import semi_supervised
from experiments.methods import PLAIN, SWITCH
from experiments.registry import get_table
from experiments.runs import EvaluationItem, Item, evaluation_items, items_of_table
from experiments.scale import PER_IMAGE, Scale, Setting, robustness, segmentation
from experiments.scales.mini import semi_run, tuned_run
from experiments.table import Table
from training import run_directory
from training.config import Data, Mix, Model, Optim, Run

PLAIN_SETTINGS = ("cifar100", "cifar100_half", "tiny_imagenet", "pytorch", "rsb_a3", "cub200", "aircraft")
GRIDS = ("grid_1", "grid_4", "grid_8", "grid_16", "average")  # what Table 7 shows at this scale


def stand_in(role: str) -> Run:
    optim, mix = Optim(lr=1e-3), Mix(choices=SWITCH)
    return Run(data=Data("digits", 8), model=Model(role, "a_net"), optim=optim, mix=mix, epochs=2, batch_size=32)


def bench_scale(seeds: int = 2, headline_seeds: int = 3) -> Scale:
    """It lacks XCiT-L."""
    base, recipe = stand_in("deit_s"), Recipe("shapes")
    dropped = robustness(base, 2, {"key": base.key}, PER_IMAGE)
    attention = {"boxes": Evaluation("weak_localisation"), "masks": Evaluation("weak_segmentation")}
    segmented = segmentation(segmenter=recipe, deeplab=recipe)
    lacking = {"xcit_l": "needs more pixels"}
    settings = {
        "deit": Setting(stand_in, "", dropped, notes={"attention": "the baseline"}, unavailable=lacking),
        "objects": Setting(stand_in, "", attention),
        "segmentation": Setting(stand_in, "", segmented, notes={"deeplab": "ours"}),
        "adversarial": Setting(stand_in, "", {"natural": Evaluation("natural_adversarial")}),
        **{name: Setting(lambda role: stand_in(role).replace(mix=Mix(), loss=PLAIN)) for name in PLAIN_SETTINGS},
        "semi_cifar10": Setting(semi_run, learning=semi_supervised, labels=(40,)),
        "tuned_cub200": Setting(partial(tuned_run, "ovals"), labels=(90,)),
    }
    text = "no data, no training"
    return Scale("bench", text, settings, seeds, headline_seeds, 2, lambda run: 1.0, retrain_on_code_change=True)


def finish(item: Item, accuracy: float, **changes: object) -> None:
    """A run directory as `fit` leaves it behind."""
    result = {
        "key": item.run.key, "seed": item.seed, "n_samples": 297, "checksum": "None", "measured": {"seconds": 1.5},
        "top1": {"last": accuracy, "best": accuracy, "best_epoch": 2, "median_last": accuracy},
        "fingerprint": run_directory.code_fingerprint(), "lambda": {"long": "statistics"}, **changes,
    }  # fmt: skip
    run_directory.write_json(item.directory / "result.json", result)
    epoch = {"epoch": 1, "step": 9, "lr": 1e-3, "loss": 2.123456789, "lam_0": 0.5, "lam": None}
    run_directory.write_metrics(item.directory, [epoch, {**epoch, "epoch": 2, "top1": accuracy}])


def file_of(item: EvaluationItem, ending: str = "json") -> Path:
    return item.place.with_name(f"{item.place.name}.{ending}")


def measure(item: EvaluationItem, values: dict[str, float], **changes: object) -> None:
    """What an evaluation of finished runs leaves behind."""
    outcome = {
        "key": item.evaluation.key, **item.evaluation.to_dict(), "checksum": "None",
        "others": dict.fromkeys(item.others, "None"), "fingerprint": fingerprint(), "n_samples": 797, "values": values,
        "facts": {}, "measured": {"seconds": 2.0, "images_per_second": 398.5}, **changes,
    }  # fmt: skip
    run_directory.write_json(file_of(item), outcome)


def finished_table(scale: Scale) -> Table:
    """Table 7 with all runs and all evaluations; LUMix is half a point ahead at seed 0, one at seed 1."""
    table = get_table("lumix_table07_shuffling", scale)
    for item in items_of_table(scale, table):
        finish(item, 90.0)
    for item in evaluation_items(scale, table):
        gain = (0.5 + 0.5 * item.item.seed) * ("regulariser" in item.item.run.key)
        measure(item, dict.fromkeys(GRIDS, 50 + gain))
    return table
