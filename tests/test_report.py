"""The report says what the results say, names scale and data above every table, and is the same text every time."""

import csv
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_fixture import MANY, NASTY, OLDER, ONE, ROOT, fake_repository, write_table

from experiments.intervals import Interval
from experiments.registry import get_table
from experiments.scale import get_scale
from report import formatting, headline, page, tables
from report.__main__ import main
from report.load import all_results, read_results


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_repository(tmp_path / "repository")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page, with one figure drawn."""
    root = fake_repository(tmp_path_factory.mktemp("page") / "repository")
    (root / "report" / "figures").mkdir(parents=True)
    (root / "report" / "figures" / "lambda_laws.png").write_bytes(b"")
    text = page.render(root)
    assert page.render(root) == text
    return text


# ------------------------------------------------------------------------------------------------- page


def test_every_table_has_its_badge_before_it(text: str) -> None:
    sections = re.findall(r'<section class="table".*?</section>', text, re.S)
    assert len(sections) == 3
    for section in sections[:2]:
        badge, table = section.index('<p class="badge">'), section.index("<table>")
        assert badge < table
        assert "mini scale: digits 8×8, tiny DeiT: NOT ImageNet" in section[badge:table]
        assert "ours (mini)" in section
    assert ["paper (ImageNet)" in section for section in sections] == [False, True, False]
    assert "mini scale: not run" in sections[2]
    assert "<table" not in sections[2]
    # A cell of the paper never stands in a column of ours.
    assert set(re.findall(r'<td class="([^"]*)">80\.5</td>', text)) == {"paper"}
    assert not re.search(r'<td class="[^"]*ours[^"]*"[^>]*>(79\.8|80\.\d)', text)


def test_page_is_self_contained_and_escapes_what_results_hold(text: str) -> None:
    assert NASTY not in text
    assert "&lt;b&gt;" in text
    assert not re.search(r"https?://|src=\"//|@import|<script|<link", text)
    for reference in re.findall(r'(?:src|href)="([^"#]+)"', text):
        assert reference.startswith("figures/")
    for anchor in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{anchor}"' in text
    (image,) = re.findall(r"<img [^>]*>", text)
    assert re.search(r'alt="[^"]{20,}"', image)
    assert "Not drawn yet" in text


def test_each_verdict_and_each_reason_is_on_the_page(text: str, root: Path) -> None:
    record = read_results(root, measured=True).records[MANY]
    assert {claim["verdict"] for claim in record["claims"]} == {""}  # mini judges nothing
    for claim in record["claims"]:
        assert claim["text"].split("(")[0] in text
    for part in ("not run: no finished run", "not at this scale", "c" * 9 + " + changes"):
        assert part in text
    assert [row["id"] for row in record["rows"] if row["cells"]["top1"]["older_code"]] == [OLDER]
    assert text.count('class="mark">older code') == 1


def test_the_register_of_both_papers_is_whole_and_shown(text: str) -> None:
    entries = page.read_register(ROOT / "docs" / "deviations.md")
    numbers = [entry["number"] for entry in entries]
    first = [f"I-{i}" for i in range(1, 15)] + ["I-14b"] + [f"I-{i}" for i in range(15, 37)]
    second = [f"D-{i}" for i in range(1, 22)]
    assert [number for number in numbers if number.startswith("I")] == first
    assert sorted(number for number in numbers if number.startswith("D")) == sorted(second)
    assert all(len(entry["fields"]) == 4 for entry in entries if entry["number"].startswith("I"))
    first_part, second_part = text.split(f"<h3>{page.PAPERS['D']}</h3>")
    assert f"<h3>{page.PAPERS['I']}</h3>" in first_part
    assert all(f'<dt id="{number}">' in second_part for number in second)


def test_a_page_without_results_without_measurements_and_of_another_scale(root: Path) -> None:
    write_table(root, ONE, 2, scale="lab")
    assert [results.scale for results in all_results(root)] == ["mini", "lab"]
    text = page.render(root)
    assert text.index('id="mini"') < text.index('id="lab"')
    assert "lab scale: CIFAR-100, small DeiT: NOT ImageNet" in text
    before = read_results(root)
    shutil.rmtree(root / "measured")
    assert read_results(root) == before  # hence an unchanged result makes no figure new
    assert "hardware" not in next(iter(before.runs.values()))["seeds"]["0"]
    page.render(root)
    shutil.rmtree(root / "results")
    text = page.render(root)
    assert text.count("mini scale: not run") >= 3
    assert "nothing to read yet" in text
    assert main(["tables"], root) == main(["page"], root) == 0


# ------------------------------------------------------------------------------------------------- headline, claims


def test_headline_is_found_by_configuration_and_agrees_with_scipy(root: Path) -> None:
    results = read_results(root)
    found = headline.find(results)
    cells = get_table(MANY, get_scale("mini")).cells
    wanted = tuple(cells[row, "top1"].key for row in ("none", "lumix", "constant"))
    assert (found.cutmix, found.lumix, found.constant) == wanted
    base, ours, _ = ([seed["top1"]["last"] for seed in results.runs[key]["seeds"].values()] for key in wanted)
    assert found.gain is not None
    assert (found.gain.n, found.gain.mean) == pytest.approx((4, sum(ours) / 4 - sum(base) / 4))
    means = [gap.mean for gap in (found.gain, found.control_gain, found.lumix_over_control) if gap]
    assert means[0] == pytest.approx(means[1] + means[2])


@pytest.mark.parametrize(
    ("low", "high", "parts"),
    [
        (-0.2, 0.4, ["contains zero", "fine enough", "excludes that"]),
        (0.1, 1.3, ["above zero", "too wide", "contains that"]),
        (-3.0, -0.1, ["below zero", "too wide", "excludes that"]),
        (None, None, ["no interval"]),
    ],
)
def test_reading_says_what_the_interval_allows(low: float | None, high: float | None, parts: list[str]) -> None:
    text = headline.reading(Interval(0.0, low, high, 8 if low is not None else 1))
    assert all(part in text for part in parts)


def test_cards_of_decoupled_mixup_compare_runs_that_differ_in_the_loss_alone() -> None:
    """In the committed results of every scale that has such runs: equal α, the pair with the most seeds."""
    for results in all_results(ROOT):
        titles = {card.title: card for card in headline.cards(results, headline.find(results))}
        for method, title in (("mixup", "Mixup"), ("cutmix", "CutMix")):
            card = titles[f"DM(CE) against MCE at equal α, {title}"]
            pair = headline.decoupled_pair(results, method)
            assert (card.gap is None) == (pair is None)
            if pair and card.gap:
                run, base = (results.runs[key]["config"] for key in pair)
                assert run.replace(loss=base.loss) == base
                assert [term.name for term in run.loss.terms] == ["cross_entropy", "decoupled"]
                assert run.mix.choices[0][0].alpha == 0.2
                assert card.gap.n == min(len(results.runs[key]["seeds"]) for key in pair)


# ------------------------------------------------------------------------------------------------- tables, pipeline


def test_tables_are_byte_stable_and_csv_holds_every_cell_unrounded(root: Path) -> None:
    def made() -> dict[str, bytes]:
        assert main(["tables"], root) == 0
        return {path.name: path.read_bytes() for path in (root / "report" / "tables" / "mini").iterdir()}

    first = made()
    assert len(first) == 8
    assert made() == first
    record = read_results(root).records[MANY]
    lines = list(csv.DictReader(io.StringIO(first[f"{MANY}.csv"].decode())))
    assert [line["row"] for line in lines] == [row["id"] for row in record["rows"]]
    for line, found in zip(lines, record["rows"], strict=True):
        wanted = found["cells"]["top1"]
        assert line["status"] == wanted["status"]
        for name in ("mean", "std", "paper"):
            assert line[name] == ("" if wanted[name] is None else repr(wanted[name]))
        assert line["difference_mean"] == (repr(wanted["difference"]["mean"]) if wanted["difference"] else "")


def test_markdown_and_latex_hold_the_numbers_and_the_badge(root: Path) -> None:
    record = read_results(root).records[ONE]
    markdown, latex = tables.markdown(record), tables.latex(record)
    for text in (markdown, latex):
        for part in (
            "NOT ImageNet",
            "paper (ImageNet)",
            *(f"{r['cells']['top1']['mean']:.1f}" for r in record["rows"]),
        ):
            assert part in text
    assert not {"\N{MINUS SIGN}", "λ"} & set(latex)
    assert not re.search(r"(?<!\\)[&_#]", latex.split("\\caption{")[1].split("}\n")[0].replace("{]}", ""))
    single = record["rows"][2]["cells"]["top1"]  # one seed has neither spread nor interval
    assert "±" not in formatting.measured(single)
    assert "(n = 1)" in formatting.difference(single)


@pytest.mark.parametrize("what", ["tables", "page"])
@pytest.mark.parametrize("folder", ["results", "measured"])
def test_damaged_results_are_named_in_one_sentence(root: Path, folder: str, what: str, capsys: Any) -> None:
    (root / folder / "mini" / f"{ONE}.json").write_text("{")
    assert main([what], root) == 1
    message = capsys.readouterr().err.strip()
    assert re.search(rf"{folder}/mini/{ONE}.json.*git checkout", message)
    assert "\n" not in message


STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_the_pipeline_draws_every_figure_and_only_what_shows_measurements_depends_on_them() -> None:
    drawing = [stage for stage in STAGES.values() if "paper_figures/execute.py" in stage["cmd"]]
    assert sorted(name for stage in drawing for name in stage["cmd"].split()[2:]) == sorted(page.FIGURES)
    for stage in drawing:
        assert {"paper_figures", "results"} <= set(stage["deps"])
        for name in stage["cmd"].split()[2:]:
            assert {f"report/figures/{name}.png", f"report/figures/{name}.pdf"} <= set(stage["outs"])
    reading = [name for name, stage in STAGES.items() if "measured" in stage.get("deps", ())]
    assert reading == ["tables", "gain_against_cost", "report"]


def test_what_training_depends_on_is_whole_rooms_and_no_more() -> None:
    stage = STAGES["results"]
    assert set(stage["deps"]) == {"lumix", "training", "evaluation", "experiments"}
    ignored = (ROOT / ".dvcignore").read_text().splitlines()
    kept = [line for line in ignored if line.startswith(tuple(stage["deps"]))]
    assert kept == ["experiments/*/README.md", "lumix/integrations"]
    outs = [next(iter(out)) for out in stage["outs"]]
    assert outs == ["runs/${scale}", "results/${scale}", "measured/${scale}"]
