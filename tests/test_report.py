"""The report says what the results say, names scale and data above every table, and is the same text every time."""

import csv
import io
import itertools
import json
import random
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from experiments.claims import Interval
from lumix.train.config import Data, Loss, Model, Optim, Run
from report import headline, page, tables, words
from report.__main__ import main
from report.load import all_results, read_results

ROOT = Path(__file__).parent.parent
NASTY = '<b>"bold" & </td>'


def fake_run(role: str = "deit_s", **loss: Any) -> Run:
    return Run(
        data=Data("digits", 8, train_size=500),
        model=Model(role, "fixture_net"),
        optim=Optim(lr=0.005),
        loss=Loss(**loss),
        epochs=4,
        batch_size=32,
    )


FULL = {"r_r": 0.4, "r_s": 0.1, "eta": 1.0}
RUNS = {
    "cutmix": fake_run(),
    "lumix": fake_run(**FULL),
    "constant": fake_run(**FULL, law="constant", law_parameter=0.5),
    "swin": fake_run("swin_t"),
}


def fake_seed(name: str, seed: int) -> dict[str, Any]:
    draw = random.Random(f"{name}{seed}")
    top1 = 50.0 + draw.random()  # far below any real result, so that the fixture is taken for nothing else
    curve = [
        {"epoch": e, "loss": 2.0 / e, "top1": 10.0 * e + draw.random(), "lam_0": 0.5, "lam": 0.5, "perturbation": 0.1}
        for e in range(1, 5)
    ]
    return {
        "key": RUNS[name].key, "seed": seed, "top1": {"last": top1, "best": top1, "best_epoch": 4, "median_last": top1},
        "top5": {"last": 90.0}, "loss": {"last": 1.0}, "n_samples": 1297, "epochs": 4, "steps": 60, "seconds": 1.5,
        "images_per_second": 900.0, "parameters": 18000, "checksum": f"{seed:064x}", "fingerprint": "f" * 16,
        "commit": "c" * 40, "dirty": seed == 0, "curve": curve,
        "hardware": {"device": "cpu", "cpu": "fixture cpu", "cores": 2, "torch": "2.0", "timm": "1.0",
                     "torchvision": "0.1", "python": "3.11"},
    }  # fmt: skip


def fake_seeds(name: str, n: int) -> dict[str, Any]:
    return {str(seed): fake_seed(name, seed) for seed in range(n)}


def cell(name: str | None, n: int, paper: float | None, base: str | None = None, **more: Any) -> dict[str, Any]:
    values = {seed: run["top1"]["last"] for seed, run in fake_seeds(name, n).items()} if name else {}
    gap = None
    if name and base:
        found = headline.paired_difference({"seeds": fake_seeds(name, n)}, {"seeds": fake_seeds(base, n)})
        assert found is not None
        gap = {"to": ["none", "top1"], "mean": found.mean, "low": found.low, "high": found.high, "n": n, "paper": 0.8}
    return {
        "status": "done" if name else "not run", "reason": "", "paper": paper, "values": values, "n": n,
        "mean": statistics.mean(values.values()) if name else None, "std": statistics.stdev(values.values()) if n > 1
        else None, "run": RUNS[name].key if name else None, "n_samples": 1297, "older_code": False, "difference": gap,
        **more,
    }  # fmt: skip


def row(name: str, cells: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "labels": {"law": f"law {name}"}, "ours": False, "note": "", "cells": cells, **more}


def fake_claim(verdict: str, n: int) -> dict[str, Any]:
    done = verdict != "not run"
    return {
        "id": f"claim-{verdict}", "text": f"A claim that is {verdict}.", "source": "Table 2", "register": ["I-19"],
        "verdict": verdict, "estimate": 0.1 if done else None, "low": -0.2 if done else None,
        "high": 0.4 if done else None, "n": n, "test": "paired t" if done else "", "explanation": NASTY,
    }  # fmt: skip


def fake_record(table: str, seeds: int) -> dict[str, Any]:
    names = [name for name in RUNS if name != "swin"]
    rows = [
        row("none", {"top1": cell("cutmix", seeds, 79.8)}),
        row("lumix", {"top1": cell("lumix", seeds, 80.6, "cutmix", older_code=True)}),
        row("constant", {"top1": cell("constant", seeds, None, "cutmix")}, ours=True, note=NASTY),
        row("later", {"top1": cell(None, 0, 80.4, reason="its data are missing")}),
        row("never", {"top1": {**cell(None, 0, 80.3), "status": "not at this scale", "reason": NASTY}}),
    ]
    runs = {
        RUNS[name].key: {"config": RUNS[name].to_dict(), "owner": table, "seeds": fake_seeds(name, seeds)}
        for name in names
    }
    return {
        "schema": 1, "table": table, "title": f"Fixture {table} & {NASTY}", "paper_table": "Table 2", "scale": "mini",
        "setting": f"A fixture, no result: {NASTY}", "statistic": "last", "metric": "top-1 accuracy, %",
        "label_columns": [{"id": "law", "title": "λr"}], "value_columns": [{"id": "top1", "title": "Top-1"}],
        "baseline": {"row": "none", "column": "top1"}, "rows": rows, "runs": runs, "seconds": 12.5,
        "claims": [fake_claim(verdict, seeds) for verdict in words.VERDICTS],
    }  # fmt: skip


def fake_repository(root: Path) -> Path:
    """Three tables: one of 4 seeds, one of a single seed, one not run."""
    (root / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "deviations.md", root / "docs")
    ids = ["fixture_many", "fixture_one", "fixture_missing"]
    (root / "params.yaml").write_text(yaml.safe_dump({"scale": "mini", "seeds": None, "tables": ids}))
    folder = root / "results" / "mini"
    folder.mkdir(parents=True)
    for table, seeds in (("fixture_many", 4), ("fixture_one", 1)):
        (folder / f"{table}.json").write_text(json.dumps(fake_record(table, seeds)))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_repository(tmp_path / "repository")


def test_every_table_has_its_badge_before_it(root: Path) -> None:
    text = page.render(root)
    sections = re.findall(r'<section class="table".*?</section>', text, re.S)
    assert len(sections) == 3
    for section in sections[:2]:
        badge, table = section.index('<p class="badge">'), section.index("<table>")
        assert badge < table
        assert "mini scale: digits 8×8, tiny DeiT: NOT ImageNet" in section[badge:table]
        assert "paper (ImageNet)" in section
        assert "ours (mini)" in section
    assert "mini scale: not run" in sections[2]
    assert "<table" not in sections[2]


def test_a_paper_cell_never_stands_in_a_column_of_ours(root: Path) -> None:
    text = page.render(root)
    assert set(re.findall(r'<td class="([^"]*)">80\.6</td>', text)) == {"start paper"}
    assert not re.search(r'<td class="ours[^"]*"[^>]*>(79\.8|80\.\d)', text)


def test_page_escapes_text_from_results(root: Path) -> None:
    text = page.render(root)
    assert NASTY not in text
    assert "&lt;b&gt;" in text


def test_page_is_self_contained_and_byte_stable(root: Path) -> None:
    text = page.render(root)
    assert page.render(root) == text
    assert not re.search(r"https?://|src=\"//|@import|<script|<link", text)
    for reference in re.findall(r'(?:src|href)="([^"#]+)"', text):
        assert reference.startswith("figures/")
    for anchor in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{anchor}"' in text


def test_page_is_built_without_any_result(root: Path) -> None:
    shutil.rmtree(root / "results")
    text = page.render(root)
    assert text.count("mini scale: not run") >= 3
    assert "nothing to read yet" in text
    assert main(["tables"], root) == main(["page"], root) == 0


def test_each_verdict_and_each_reason_is_on_the_page(root: Path) -> None:
    text = page.render(root)
    for verdict in words.VERDICTS:
        assert f"A claim that is {verdict}." in text
    assert "its data are missing" in text
    assert "not at this scale" in text
    assert "our row" in text
    assert "older code" in text
    assert "c" * 9 + " + changes" in text


def test_images_have_alternative_text(root: Path) -> None:
    folder = root / "report" / "figures"
    folder.mkdir(parents=True)
    (folder / "lambda_laws.png").write_bytes(b"")
    text = page.render(root)
    images = re.findall(r"<img [^>]*>", text)
    assert len(images) == 1
    assert re.search(r'alt="[^"]{20,}"', images[0])
    assert "Not drawn yet" in text


def test_headline_is_found_by_configuration_and_agrees_with_scipy(root: Path) -> None:
    results = read_results(root)
    found = headline.find(results)
    assert (found.cutmix, found.lumix, found.constant) == tuple(RUNS[n].key for n in ("cutmix", "lumix", "constant"))
    ours, base = (
        [run["top1"]["last"] for run in results.runs[key]["seeds"].values()] for key in (found.lumix, found.cutmix)
    )
    low, high = stats.ttest_rel(ours, base).confidence_interval(0.95)
    assert found.gain is not None
    assert found.gain.n == 4
    assert (found.gain.low, found.gain.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("low", "high", "parts"),
    [
        (-0.2, 0.4, ["contains zero", "fine enough", "excludes"]),
        (0.1, 1.3, ["above zero", "fine enough", "contains that"]),
        (-3.0, -0.1, ["below zero", "below what these runs can see"]),
        (None, None, ["no interval"]),
    ],
)
def test_reading_says_what_the_interval_allows(low: float | None, high: float | None, parts: list[str]) -> None:
    text = headline.reading(Interval(0.0, low, high, 8 if low is not None else 1))
    assert all(part in text for part in parts)


def test_one_seed_has_no_spread_and_no_interval(root: Path) -> None:
    record = read_results(root).records["fixture_one"]
    lumix = record["rows"][1]["cells"]["top1"]
    assert "±" not in words.measured(lumix)
    assert "no interval" in words.difference(lumix)


def test_csv_holds_every_cell_unrounded(root: Path) -> None:
    assert main(["tables"], root) == 0
    record = read_results(root).records["fixture_many"]
    text = (root / "report" / "tables" / "mini" / "fixture_many.csv").read_text()
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["row"] for line in lines] == [row["id"] for row in record["rows"]]
    for line, found in zip(lines, record["rows"], strict=True):
        wanted = found["cells"]["top1"]
        assert line["status"] == wanted["status"]
        for name in ("mean", "std", "paper"):
            assert line[name] == ("" if wanted[name] is None else repr(wanted[name]))
        assert line["difference_mean"] == (repr(wanted["difference"]["mean"]) if wanted["difference"] else "")


def test_markdown_and_latex_hold_the_numbers_and_the_badge(root: Path) -> None:
    record = read_results(root).records["fixture_many"]
    markdown, latex = tables.markdown(record), tables.latex(record)
    for text in (markdown, latex):
        assert "NOT ImageNet" in text
        assert "paper (ImageNet)" in text
        for found in record["rows"]:
            mean = found["cells"]["top1"]["mean"]
            assert mean is None or f"{mean:.1f}" in text
    assert "\N{MINUS SIGN}" not in latex
    assert "λ" not in latex
    assert not re.search(r"(?<!\\)[&_#]", latex.split("\\caption{")[1].split("}\n")[0].replace("{]}", ""))


def test_tables_are_byte_stable(root: Path) -> None:
    def made() -> dict[str, bytes]:
        assert main(["tables"], root) == 0
        return {path.name: path.read_bytes() for path in (root / "report" / "tables" / "mini").iterdir()}

    first = made()
    assert len(first) == 8
    assert made() == first


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema": 1}'])
@pytest.mark.parametrize("what", ["tables", "page"])
def test_damaged_results_are_named_in_one_sentence(root: Path, damage: str, what: str, capsys: Any) -> None:
    (root / "results" / "mini" / "fixture_one.json").write_text(damage)
    assert main([what], root) == 1
    message = capsys.readouterr().err.strip()
    assert "fixture_one.json" in message
    assert "git checkout" in message
    assert "\n" not in message


def test_other_scales_with_results_are_shown_after_the_asked_one(root: Path) -> None:
    record = {**fake_record("fixture_many", 2), "scale": "lab"}
    (root / "results" / "lab").mkdir()
    (root / "results" / "lab" / "fixture_many.json").write_text(json.dumps(record))
    assert [results.scale for results in all_results(root)] == ["mini", "lab"]
    text = page.render(root)
    assert text.index('id="mini"') < text.index('id="lab"')
    assert "lab scale: digits 8×8, small DeiT: NOT ImageNet" in text


def test_register_is_complete() -> None:
    entries = page.read_register(ROOT / "docs" / "deviations.md")
    numbers = [entry["number"] for entry in entries]
    assert numbers == [f"I-{i}" for i in range(1, 15)] + ["I-14b"] + [f"I-{i}" for i in range(15, 37)]
    assert all(len(entry["fields"]) == 4 for entry in entries)


def test_pipeline_parameters_and_registry_name_the_same_tables() -> None:
    from experiments.registry import TABLES

    parameters = yaml.safe_load((ROOT / "params.yaml").read_text())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert parameters["tables"] == list(TABLES)
    assert stages["results"]["matrix"] == {"table": "${tables}"}
    assert set(stages["figures"]["matrix"]["figure"]) == set(page.FIGURES)


def test_headline_differences_are_consistent(root: Path) -> None:
    found = headline.find(read_results(root))
    means = [gap.mean for gap in (found.gain, found.control_gain, found.lumix_over_control) if gap]
    assert len(means) == 3
    assert means[0] == pytest.approx(means[1] + means[2])
    assert len(set(itertools.chain(means))) == 3
