"""Tables, scales, ownership and collection: every cell has its run, every run one owner, every record its evidence."""

import csv
import json
from functools import partial
from pathlib import Path

import pytest

from evaluation.arguments import Recipe
from evaluation.evaluation import Evaluation
from experiments import recipes
from experiments.cost import costs
from experiments.learning import semi_supervised
from experiments.methods import PLAIN, SWITCH, constant_control, lumix
from experiments.protocols import PER_IMAGE, robustness, segmentation
from experiments.registry import TABLES, directory_of, get_table, owners, seeds_of, tables_of
from experiments.results import collect
from experiments.runs import ABSENT, DAMAGED, FINISHED, OLDER, STARTED, Item, is_open, items_of_table, state
from experiments.scale import NAMES, Scale, Setting, get_scale
from experiments.scales.mini import semi_run, tuned_run
from lumix.registry import name_of
from training import run_directory
from training.config import Data, Mix, Model, Optim, Run

ROOT = Path(__file__).resolve().parents[1]


def stand_in(role: str) -> Run:
    return Run(
        data=Data("digits", 8),
        model=Model(role, "a_net"),
        optim=Optim(lr=1e-3),
        mix=Mix(choices=SWITCH),
        epochs=2,
        batch_size=32,
    )


def plain(role: str) -> Run:
    """The stand-in without mixing and smoothing, as the recipes of Decoupled Mixup are."""
    return stand_in(role).replace(mix=Mix(), loss=PLAIN)


def bench_scale(seeds: int, headline_seeds: int, unavailable: dict[str, str]) -> Scale:
    """A scale of stand-ins, on which every table can be built and nothing is trained."""
    base = stand_in("deit_s")
    dropped = robustness(base, 2, {"key": base.key}, PER_IMAGE)
    boxes, masks = Evaluation("weak_localisation"), Evaluation("weak_segmentation")
    recipe = Recipe("shapes")
    settings = {
        "deit": Setting(stand_in, "", dropped, notes={"attention": "the baseline"}, unavailable=unavailable),
        "objects": Setting(stand_in, "", {"boxes": boxes, "masks": masks}),
        "segmentation": Setting(
            stand_in, "", segmentation(segmenter=recipe, deeplab=recipe), notes={"deeplab": "ours"}
        ),
        "adversarial": Setting(stand_in, "", {"natural": Evaluation("natural_adversarial")}),
        **{
            name: Setting(plain)
            for name in ("cifar100", "cifar100_half", "tiny_imagenet", "pytorch", "rsb_a3", "cub200", "aircraft")
        },
        "semi_cifar10": Setting(semi_run, learning=semi_supervised, labels=(40,)),
        "tuned_cub200": Setting(partial(tuned_run, "ovals"), labels=(90,)),
    }
    return Scale(
        name="bench",
        text="no data, no training",
        settings=settings,
        seeds=seeds,
        headline_seeds=headline_seeds,
        patch=2,
        hours=lambda run: 1.0,
        retrain_on_code_change=True,
    )


@pytest.fixture
def scale(tmp_path, monkeypatch) -> Scale:
    """A scale without XCiT-L, in an empty project root."""
    monkeypatch.chdir(tmp_path)
    return bench_scale(2, 3, {"xcit_l": "needs more pixels"})


def finish(item: Item, accuracy: float, **changes: object) -> None:
    """A run directory as `fit` leaves it behind."""
    result = {
        "key": item.run.key,
        "seed": item.seed,
        "top1": {"last": accuracy, "best": accuracy, "best_epoch": 2, "median_last": accuracy},
        "n_samples": 297,
        "checksum": "None",
        "measured": {"seconds": 1.5},
        "fingerprint": run_directory.code_fingerprint(),
        "lambda": {"long": "statistics"},
        **changes,
    }
    run_directory.write_json(item.directory / "result.json", result)
    epoch = {"epoch": 1, "step": 9, "lr": 1e-3, "loss": 2.123456789, "lam_0": 0.5, "lam": None}
    run_directory.write_metrics(item.directory, [epoch, {**epoch, "epoch": 2, "top1": accuracy}])


# ------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("name", "table"), [(name, table.id) for name in NAMES for table in tables_of(get_scale(name))]
)
def test_every_scale_builds_its_tables(name, table):
    scale = get_scale(name)
    built = get_table(table, scale)
    assert built.id == table
    assert set(built.headline) <= built.cells.keys()
    assert built.folder.name == table
    for row in built.rows:
        assert row.runs.keys() == {column.id for column in built.value_columns} or row.unavailable
        assert row.labels.keys() == {column.id for column in built.label_columns}
        assert all(Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run for run in row.runs.values())
    assert len({row.id for row in built.rows}) == len(built.rows)
    assert len({claim.id for claim in built.claims}) == len(built.claims)


@pytest.mark.parametrize("table", TABLES)
def test_paper_cells_and_claims_speak_of_cells_of_their_table(table):
    built = get_table(table, get_scale("paper"))
    ours = {row.id for row in built.rows if row.ours}
    columns = {column for _, column in built.paper}  # an evaluation may show more than the paper did
    assert built.paper.keys() == {cell for cell in built.cells if cell[0] not in ours and cell[1] in columns}
    # Tables of ours have no cells of the paper, and its figures print no numbers.
    assert (not built.paper_table or built.paper_table.startswith("Figure")) == (not built.paper)
    with (built.folder / "claims.csv").open(encoding="utf-8") as file:
        assert [line["id"] for line in csv.DictReader(file)] == [claim.id for claim in built.claims]
    for claim in built.claims:
        assert claim.sentence
        assert claim.source
        assert set() < claim.cells <= set(built.cells)
        if any(one.paper for one in claim.comparisons):
            assert claim.cells <= set(built.paper)


def test_the_papers_cells_add_up():
    paper = get_table("lumix_table01_models", get_scale("paper")).paper
    gains = [paper[row, "lumix"] - value for (row, column), value in paper.items() if column == "base"]
    assert sum(gains) / len(gains) == pytest.approx(0.38, abs=0.005)  # recomputed in methods.md 6.2
    assert min(gains) == pytest.approx(0.1)


def test_the_robustness_tables_average_as_the_register_says():
    paper = get_table("lumix_table07_shuffling", get_scale("paper")).paper
    for row, average in (("base", 67.32), ("lumix", 67.82)):  # I-28
        cells = [value for (id, column), value in paper.items() if column == row and id != "average"]
        assert len(cells) == 6
        assert sum(cells) / 6 == pytest.approx(average, abs=0.005)
        assert paper["average", row] == pytest.approx(average, abs=0.05)
    paper = get_table("lumix_table09_occlusion", get_scale("paper")).paper
    for row, average, printed in (("base", 49.74, 49.75), ("lumix", 52.93, 52.92)):  # I-30
        cells = [value for (id, column), value in paper.items() if column == row and not id.endswith("average")]
        assert len(cells) == 10
        assert sum(cells) / 10 == pytest.approx(average, abs=0.005)
        assert paper["non_salient_average", row] == printed


def test_claims_cover_the_register():
    named = {
        entry for table in TABLES for claim in get_table(table, get_scale("paper")).claims for entry in claim.register
    }
    assert {f"I-{number}" for number in (19, 20, 21, 22, 23, 24, 28, 29, 30, 31, 32)} <= named


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_its_card(table):
    card = (ROOT / "experiments" / table / "README.md").read_text()
    for part in ("Claim under test", "Commands", f"python -m experiments run {table}", "Outcome"):
        assert part in card


# ------------------------------------------------------------------------------------------------- sharing


def test_training_runs_of_the_paper_are_those_of_the_inventory():
    """Of the tables that show what training ends with, as the inventory counts hours: runs that several share once."""
    scale = get_scale("paper")
    tables = [table for table in tables_of(scale) if table.id.startswith("lumix") and not table.evaluations]
    papers = {t.id: {run.key for row in t.rows if not row.ours for run in row.runs.values()} for t in tables}
    runs = {key: run for table in tables for key, run in table.runs.items()}
    every = set().union(*papers.values())
    assert sum(scale.hours(runs[key]) for key in every) == pytest.approx(5796.6, abs=0.01)

    def tables_with(run: Run) -> set[str]:
        return {table.split("_")[1][5:] for table, keys in papers.items() if run.key in keys}

    base = scale.base("deit", "deit_s")
    assert tables_with(base) == {"01", "02", "03", "10", "11"}
    assert tables_with(lumix(base)) == {"01", "02", "10", "11", "12"}


def test_the_first_table_owns_a_run_and_seeds_are_paired(scale):
    base = scale.base("deit", "deit_s")
    assert owners(scale)[base.key] == "lumix_table01_models"
    assert owners(scale)[constant_control(base).key] == "lumix_controls"
    assert directory_of(scale, base, 4) == Path("runs", "bench", "lumix_table01_models", base.key, "seed4")
    assert list(seeds_of(scale, base)) == list(seeds_of(scale, lumix(base))) == [0, 1, 2]
    assert list(seeds_of(scale, constant_control(base))) == [0, 1, 2]
    assert list(seeds_of(scale, scale.base("deit", "swin_t"))) == [0, 1]
    assert list(seeds_of(scale, base, 1)) == [0]


def test_costs_count_every_run_once(scale):
    every = costs(scale)
    unique = {key for table in TABLES for key in get_table(table, scale).runs}
    assert sum(runs for runs, *_ in every.values()) == len(unique)
    runs, trainings, hours, *_ = every["lumix_table01_models"]
    assert runs == len(get_table("lumix_table01_models", scale).runs)
    assert trainings == hours == 2 * runs + 2  # DeiT-S and its LUMix run have a third seed


# ------------------------------------------------------------------------------------------------- recipes


def test_recipes_are_those_of_the_recipe_document():
    runs = {
        role: get_scale("paper").base("deit", role) for role in ("deit_s", "swin_b", "convnext_s", "xcit_m", "resnet50")
    }
    for run in runs.values():
        assert (run.optim.lr, run.optim.weight_decay, run.batch_size) == (1e-3, 0.05, 1024)
        assert (run.data.image_size, run.data.crop_scale, run.data.erasing) == (224, 0.08, 0.25)
        assert run.data.rand_augment == recipes.RAND_AUGMENT == "rand-m9-mstd0.5-inc1"
        mixing = [(name_of(mixer), mixer.alpha, weight) for mixer, weight in run.mix.choices]
        assert mixing == [("mixup", 0.8, 0.5), ("cutmix", 1.0, 0.5)]
        assert [(term.name, term.smoothing) for term in run.loss.terms] == [("cross_entropy", 0.1)]
    deit, swin, convnext, xcit, resnet = runs.values()
    assert [run.epochs for run in runs.values()] == [300, 300, 300, 400, 300]
    assert [run.optim.warmup_epochs for run in runs.values()] == [5, 20, 20, 20, 5]
    assert [run.optim.min_lr for run in runs.values()] == [1e-5, 1e-5, 1e-6, 1e-5, 1e-5]
    assert [run.optim.clip_grad for run in runs.values()] == [1, 5, 0, 0, 1]
    assert [run.optim.ema_decay for run in runs.values()] == [0.99996, 0, 0.9999, 0.99996, 0.99996]
    assert [run.optim.ema_reported for run in runs.values()] == [False, False, True, False, False]
    assert [run.data.repeats for run in runs.values()] == [3, 1, 1, 3, 3]
    assert [run.data.test_crop for run in runs.values()] == [0.875, 0.875, 0.875, 1.0, 0.875]
    assert [run.model.arguments["drop_path_rate"] for run in runs.values()] == [0.1, 0.5, 0.4, 0.15, 0]
    assert convnext.model.arguments["ls_init_value"] == 1e-6
    assert xcit.model.arguments["eta"] == 1e-5
    assert deit.model.name == "deit_small_patch16_224"
    assert swin.model.role == "swin_b"
    assert resnet.model.name == "resnet50"


# ------------------------------------------------------------------------------------------------- states and records


def test_states_of_a_run(scale):
    (item, *_) = items_of_table(scale, get_table("lumix_table02_components", scale))
    assert (state(item), is_open(scale, item)) == (ABSENT, True)
    run_directory.write_json(item.directory / "environment.json", {})
    assert (state(item), is_open(scale, item)) == (STARTED, True)
    finish(item, 90.0)
    assert (state(item), is_open(scale, item)) == (FINISHED, False)
    finish(item, 90.0, fingerprint="of other code")
    assert (state(item), is_open(scale, item)) == (OLDER, True)
    assert not is_open(get_scale("lab"), item)
    (item.directory / "result.json").write_text('{"key": "cut')
    assert (state(item), is_open(scale, item)) == (DAMAGED, True)


def test_a_record_of_nothing_says_so(scale):
    (values,) = collect(scale, [get_table("lumix_table01_models", scale)])
    cells = {row["id"]: row["cells"]["base"] for row in values["rows"]}
    assert cells["deit_s"]["status"] == "not run"
    assert cells["xcit_l"] == {**cells["xcit_l"], "status": "not at this scale", "reason": "needs more pixels"}
    assert {claim["verdict"] for claim in values["claims"]} == {"not run"}
    assert not any(run["seeds"] for run in values["runs"].values())


def test_a_record_holds_cells_differences_claims_and_runs(scale):
    table = get_table("lumix_table02_components", scale)
    top1 = {
        ("none", 0): 90.0,
        ("none", 1): 91.0,
        ("none", 2): 89.5,
        ("full", 0): 91.0,
        ("full", 1): 92.5,
        ("full", 2): 90.5,
    }
    for (row, seed), value in top1.items():
        run = table.cells[row, "top1"]
        finish(Item(run, seed, directory_of(scale, run, seed)), value)
    (values,) = collect(scale, [table])
    none, *_, full = [row["cells"]["top1"] for row in values["rows"]]
    assert (full["mean"], full["n"], full["values"]) == (91.333333, 3, {"0": 91.0, "1": 92.5, "2": 90.5})
    assert full["std"] == pytest.approx(1.040833)
    assert (full["paper"], full["status"], full["n_samples"], full["older_code"]) == (80.5, "done", 297, False)
    assert none["difference"] is None
    difference = full["difference"]
    assert (difference["to"], difference["n"], difference["paper"]) == (["none", "top1"], 3, 0.7)
    # Differences 1, 1.5, 1: mean 7/6, deviation sqrt(1/12), Student's t 4.302653 with 2 degrees of freedom.
    assert difference["mean"] == pytest.approx(7 / 6)
    assert difference["high"] == pytest.approx(7 / 6 + 4.302653 * (1 / 12) ** 0.5 / 3**0.5, abs=1e-5)
    claims = {claim["id"]: claim for claim in values["claims"]}
    assert claims["components-full"]["verdict"] == "supported"
    assert claims["components-lam_s"]["verdict"] == "not run"
    run = values["runs"][table.cells["full", "top1"].key]
    assert run["owner"] == "lumix_table01_models"
    assert run["config"] == table.cells["full", "top1"]
    assert not {"lambda", "key", "seed"} & set(run["seeds"]["0"])
    assert run["seeds"]["0"]["curve"][1] == {"epoch": 2, "loss": 2.1235, "lam_0": 0.5, "lam": None, "top1": 91.0}


def test_fewer_seeds_and_older_code_are_flagged(scale):
    table = get_table("lumix_table02_components", scale)
    (item, *_) = items_of_table(scale, table)
    finish(item, 90.0, fingerprint="of other code")
    cell, one = (next(collect(scale, [table], seeds))["rows"][0]["cells"]["top1"] for seeds in (None, 1))
    assert (cell["n"], cell["std"], cell["older_code"]) == (1, None, True)
    assert cell["reason"] == "1 of 3 seeds are finished"
    assert one["reason"] == ""


def test_damaged_and_foreign_results_are_named(scale):
    table = get_table("lumix_table02_components", scale)
    (item, *_) = items_of_table(scale, table)
    finish(item, 90.0, seed=7)
    with pytest.raises(run_directory.RunError, match="seed 7, not of"):
        next(collect(scale, [table]))
    (item.directory / "result.json").write_text('{"key": "dig')
    with pytest.raises(run_directory.RunError, match=r"result\.json is damaged .* delete it and run"):
        next(collect(scale, [table]))


def test_what_a_started_run_is_at_is_read_from_its_directory(tmp_path):
    from experiments.runs import activity

    item = Item(get_scale("mini").base("deit", "deit_s"), 0, tmp_path / "seed0")
    assert activity(item) == "not started"
    item.directory.mkdir()
    (item.directory / "environment.json").write_text("{}")
    assert activity(item) == "started"
    (item.directory / "log.txt").write_text("attempt 1\nfailed: no such disk\n")
    assert activity(item) == "failed"
    (item.directory / "lock").write_text("{}")
    assert activity(item) == "running"
