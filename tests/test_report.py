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
from scipy import stats

from experiments.intervals import Interval
from experiments.registry import get_table
from experiments.results import correct
from experiments.scale import get_scale
from report import formatting, headline, page, tables
from report.__main__ import main
from report.load import all_results, read_results


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
        assert "ours (mini)" in section
    assert ["paper (ImageNet)" in section for section in sections] == [False, True, False]
    assert "mini scale: not run" in sections[2]
    assert "<table" not in sections[2]


def test_a_paper_cell_never_stands_in_a_column_of_ours(root: Path) -> None:
    text = page.render(root)
    assert set(re.findall(r'<td class="([^"]*)">80\.5</td>', text)) == {"paper"}
    assert not re.search(r'<td class="[^"]*ours[^"]*"[^>]*>(79\.8|80\.\d)', text)


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
    record = read_results(root, measured=True).records[MANY]
    assert {claim["verdict"] for claim in record["claims"]} >= {"inconclusive", "not run"}
    for claim in record["claims"]:
        assert claim["text"].split("(")[0] in text
    assert "not run: no finished run" in text
    assert "not at this scale" in text
    assert [row["id"] for row in record["rows"] if row["cells"]["top1"]["older_code"]] == [OLDER]
    assert text.count('class="mark">older code') == 1
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
    cells = get_table(MANY, get_scale("mini")).cells
    wanted = tuple(cells[row, "top1"].key for row in ("none", "lumix", "constant"))
    assert (found.cutmix, found.lumix, found.constant) == wanted
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
        (-0.2, 0.4, ["contains zero", "fine enough", "excludes that"]),
        (0.1, 1.3, ["above zero", "too wide", "contains that"]),
        (-3.0, -0.1, ["below zero", "too wide", "excludes that"]),
        (None, None, ["no interval"]),
    ],
)
def test_reading_says_what_the_interval_allows(low: float | None, high: float | None, parts: list[str]) -> None:
    text = headline.reading(Interval(0.0, low, high, 8 if low is not None else 1))
    assert all(part in text for part in parts)


def test_one_seed_has_no_spread_and_no_interval(root: Path) -> None:
    record = read_results(root).records[ONE]
    lumix = record["rows"][2]["cells"]["top1"]
    assert "±" not in formatting.measured(lumix)
    assert "no interval" in formatting.difference(lumix)


def test_csv_holds_every_cell_unrounded(root: Path) -> None:
    assert main(["tables"], root) == 0
    record = read_results(root).records[MANY]
    text = (root / "report" / "tables" / "mini" / f"{MANY}.csv").read_text()
    lines = list(csv.DictReader(io.StringIO(text)))
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


@pytest.mark.parametrize("what", ["tables", "page"])
@pytest.mark.parametrize("folder", ["results", "measured"])
def test_damaged_results_are_named_in_one_sentence(root: Path, folder: str, what: str, capsys: Any) -> None:
    (root / folder / "mini" / f"{ONE}.json").write_text("{")
    assert main([what], root) == 1
    message = capsys.readouterr().err.strip()
    assert f"{folder}/mini/{ONE}.json" in message
    assert "git checkout" in message
    assert "\n" not in message


def test_other_scales_with_results_are_shown_after_the_asked_one(root: Path) -> None:
    write_table(root, ONE, 2, scale="lab")
    assert [results.scale for results in all_results(root)] == ["mini", "lab"]
    text = page.render(root)
    assert text.index('id="mini"') < text.index('id="lab"')
    assert "lab scale: CIFAR-100, small DeiT: NOT ImageNet" in text


def test_register_is_complete() -> None:
    entries = page.read_register(ROOT / "docs" / "deviations.md")
    numbers = [entry["number"] for entry in entries if entry["number"].startswith("I")]
    assert numbers == [f"I-{i}" for i in range(1, 15)] + ["I-14b"] + [f"I-{i}" for i in range(15, 37)]
    assert all(len(entry["fields"]) == 4 for entry in entries)


def test_register_of_the_second_paper_is_complete_and_shown(root: Path) -> None:
    numbers = [entry["number"] for entry in page.read_register(ROOT / "docs" / "deviations.md")]
    second = [f"D-{i}" for i in range(1, 22)]
    assert sorted(number for number in numbers if number.startswith("D")) == sorted(second)
    first_part, second_part = page.render(root).split(f"<h3>{page.PAPERS['D']}</h3>")
    assert f"<h3>{page.PAPERS['I']}</h3>" in first_part
    assert all(f'<dt id="{number}">' in second_part for number in second)
    assert '<dt id="I-' not in second_part


STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_the_pipeline_draws_every_figure_of_the_page() -> None:
    drawing = [stage for stage in STAGES.values() if "paper_figures/execute.py" in stage["cmd"]]
    assert sorted(name for stage in drawing for name in stage["cmd"].split()[2:]) == sorted(page.FIGURES)
    for stage in drawing:
        assert {"paper_figures", "results"} <= set(stage["deps"])
        for name in stage["cmd"].split()[2:]:
            assert {f"report/figures/{name}.png", f"report/figures/{name}.pdf"} <= set(stage["outs"])


def test_what_training_depends_on_is_whole_rooms_and_no_more() -> None:
    stage = STAGES["results"]
    assert set(stage["deps"]) == {"lumix", "training", "evaluation", "experiments"}
    ignored = (ROOT / ".dvcignore").read_text().splitlines()
    assert [line for line in ignored if line.startswith(tuple(stage["deps"]))] == [
        "experiments/*/README.md", "lumix/integrations",
    ]  # fmt: skip
    assert {next(iter(out)) for out in stage["outs"]} == {
        f"{folder}/${{scale}}" for folder in ("runs", "results", "measured")
    }


def test_an_unchanged_result_makes_no_figure_new(root: Path) -> None:
    assert [name for name, stage in STAGES.items() if "measured" in stage.get("deps", ())] == [
        "tables", "gain_against_cost", "report",
    ]  # fmt: skip
    before = read_results(root)
    shutil.rmtree(root / "measured")
    assert read_results(root) == before
    assert "hardware" not in next(iter(before.runs.values()))["seeds"]["0"]
    page.render(root)  # without measurements a page, too


def test_headline_differences_are_consistent(root: Path) -> None:
    found = headline.find(read_results(root))
    means = [gap.mean for gap in (found.gain, found.control_gain, found.lumix_over_control) if gap]
    assert len(means) == 3
    assert means[0] == pytest.approx(means[1] + means[2])


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


def claim_with(p: float | None, verdict: str) -> dict[str, Any]:
    return {"p": p, "verdict": verdict, "n": 8, "detectable": 0.5}


def test_verdicts_are_corrected_over_the_claims_of_a_paper() -> None:
    found = [claim_with(0.01, "supported"), claim_with(0.04, "contradicted"), claim_with(None, "not run")]
    found.append(claim_with(0.5, "inconclusive"))
    correct(found)
    assert [claim["verdict"] for claim in found] == ["supported", "inconclusive", "not run", "inconclusive"]
    assert (found[1]["corrected"], found[1]["of"], found[1]["alone"]) == (0.08, 3, "contradicted")
    text = formatting.correction(found[1])
    assert "0.08 corrected for 3 claims; by itself it would be contradicted" in text
    assert "see differences above 0.50" in text
