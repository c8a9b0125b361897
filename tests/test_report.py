"""The report says what the results say, names scale and data above every table, and is the same text every time."""

import csv
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_fixture import MANY, NASTY, OLDER, ONE, ROOT, TOGETHER, fake_repository, write_table
from scipy import stats

from report import findings, formatting, page, tables
from report.__main__ import main
from report.load import all_results, cells, read_results


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_repository(tmp_path / "repository")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every page by its file, with one figure drawn."""
    root = fake_repository(tmp_path_factory.mktemp("page") / "repository")
    (root / "report" / "figures").mkdir(parents=True)
    (root / "report" / "figures" / "lambda_laws.png").write_bytes(b"")
    found = page.render(root)
    assert page.render(root) == found
    return found


def test_every_table_has_its_badge_before_it(pages: dict[str, str]) -> None:
    text = pages["lumix.html"]
    sections = re.findall(r'<section class="table".*?</section>', text, re.S)
    badges = ["small_earlier scale: CIFAR-100, 15 % of the labels at 16 pixels, small ResNet: NOT ImageNet"]
    badges += ["mini scale: digits 8×8, tiny DeiT: NOT ImageNet"] * 2
    for section, expected in zip(sections, [*badges, "mini scale: not run"], strict=True):
        badge, table = section.index('<p class="badge">'), section.find("<table>")
        assert expected in section[badge:table]
        assert (table < 0) == (expected == "mini scale: not run")
    assert ["paper (ImageNet)" in section for section in sections] == [False, False, True, False]
    # A cell of the paper never stands in a column of ours.
    assert set(re.findall(r'<td class="([^"]*)">80\.5</td>', text)) == {"paper"}
    assert not re.search(r'<td class="[^"]*ours[^"]*"[^>]*>(79\.8|80\.\d)', text)
    assert TOGETHER in pages["decoupled.html"]


def test_pages_need_nothing_else_escape_what_results_hold_and_every_link_is_alive(pages: dict[str, str]) -> None:
    assert len(pages["index.html"].encode()) < 150_000
    assert "&lt;b&gt;" in pages["runs.html"]
    for file, text in pages.items():
        assert NASTY not in text
        assert not re.search(r"https?://|src=\"//|@import|<script|<link", text)
        for reference in re.findall(r'(?:src|href)="([^"]+)"', text):
            other, _, anchor = reference.partition("#")
            if other.startswith("figures/"):
                assert other in ("figures/lambda_laws.png", "figures/lambda_laws.pdf")
            else:
                assert not anchor or f'id="{anchor}"' in pages[other or file], reference
        assert all(f'href="{other}"' in text for other in pages if other != file)
    (image,) = re.findall(r"<img [^>]*>", "".join(pages.values()))
    assert re.search(r'alt="[^"]{20,}"', image)
    assert "Not drawn yet" in pages["index.html"]


def test_each_claim_and_each_reason_is_on_a_page(pages: dict[str, str], root: Path) -> None:
    record = read_results(root, measured=True).records[MANY]
    assert {claim["verdict"] for claim in record["claims"]} == {""}  # mini judges nothing
    for claim in record["claims"]:
        assert claim["text"].split("(")[0] in pages["lumix.html"]
    for part in ("not run: no finished run", "c" * 9 + " + changes"):
        assert part in pages["runs.html"]
    assert [row["id"] for row in record["rows"] if row["cells"]["top1"]["older_code"]] == [OLDER]
    assert pages["lumix.html"].count('class="mark">older code') == 1


def test_the_register_of_both_papers_is_whole_and_shown(pages: dict[str, str]) -> None:
    entries = page.read_register(ROOT / "docs" / "deviations.md")
    numbers = [entry["number"] for entry in entries]
    first = [f"I-{i}" for i in range(1, 15)] + ["I-14b"] + [f"I-{i}" for i in range(15, 37)]
    second = [f"D-{i}" for i in range(1, 22)]
    assert [number for number in numbers if number.startswith("I")] == first
    assert sorted(number for number in numbers if number.startswith("D")) == sorted(second)
    assert all(len(entry["fields"]) == 4 for entry in entries if entry["number"].startswith("I"))
    assert all(f'<dt id="{number}">' in pages["register.html"] for number in numbers)


def test_the_first_page_begins_with_what_was_found_on_photographs(pages: dict[str, str], root: Path) -> None:
    (photographs,) = findings.judging(all_results(root))
    record = photographs.records[TOGETHER]
    ours, base = (
        row["cells"]["top1"]["values"] for name in ("lumix", "cutmix") for row in record["rows"] if row["id"] == name
    )
    low, high = stats.ttest_rel([*ours.values()], [*base.values()]).confidence_interval(0.95)
    shown = f"{formatting.signed(sum(ours.values()) / 8 - sum(base.values()) / 8)} {formatting.interval(low, high)}"
    text = pages["index.html"]
    sentence = f"LUMix over CutMix: {shown}, n = 8, supported; excludes the paper’s +0.8."
    assert text.index(sentence) < text.index("<figure")
    assert "DM(CE) over MCE at equal α, Mixup: not run. CutMix: not run." in text
    assert "(scale small_earlier: CIFAR-100, 15 % of the labels at 16 pixels, small ResNet)" in text
    assert "Nothing was run of the protocol on photographs (scale small), at 32 pixels on a GPU (scale lab) or" in text


def test_few_seeds_get_neither_interval_nor_verdict_and_the_nearest_verdict_is_told(root: Path) -> None:
    write_table(root, MANY, 3, scale="lab")
    every = all_results(root)
    assert [results.scale for results in every] == ["lab", "small_earlier", "mini"]
    assert "n = 8, supported; excludes the paper’s +0.8." in findings.told(every, "lumix")
    few = next(one for one in findings.find(every) if one.scale == "lab" and one.claim)
    assert (few.gap["low"], few.claim["verdict"]) == (None, "")
    assert findings.outcome(few.claim).endswith("n = 3, too few for an interval")
    assert "(scale lab: CIFAR-100, small DeiT; scale small_earlier: " in findings.lead(every)


@pytest.mark.parametrize(("blocks", "said"), [(5, "no verdict before its last block"), (12, "supported; excludes")])
def test_a_protocol_is_judged_after_its_last_block(root: Path, blocks: int, said: str) -> None:
    def better(row: str, found: dict[str, Any]) -> None:
        found["top1"]["median_last"] += 3 * (row == "lumix")

    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("]", ", lumix_photographs]"))
    write_table(root, "lumix_photographs", blocks, scale="small", change=better)
    every = all_results(root)
    assert f"n = {blocks}, {said}" in findings.told(every, "lumix")
    found = next(one for one in findings.find(every) if one.scale == "small")
    assert found.gap["low"] < 3 < found.gap["high"]
    assert (found.claim["p"] is None) == (blocks < 12)


@pytest.mark.parametrize(("gain", "said"), [(3.0, "shows"), (-3.0, "does not show")])
def test_controls_say_first_whether_known_gains_are_seen(root: Path, gain: float, said: str) -> None:
    def better(row: str, found: dict[str, Any]) -> None:
        found["top1"]["median_last"] -= gain * (row == "plain")

    assert "the known gains of mixing, was not run whole" in findings.lead(all_results(root))
    write_table(root, "lumix_photographs_controls", 5, scale="small", change=better)
    every = all_results(root)
    assert f"This setting {said} the known gains of mixing" in findings.lead(every)
    claims = {claim["id"]: claim for claim in every[0].records["lumix_photographs_controls"]["claims"]}
    assert claims["known-mixup"]["paper"] is None  # the published gains are shown and not tested against
    assert claims["known-mixup"]["p_equal"] is not None


def test_tables_and_seeds_of_params_are_those_of_its_scale(root: Path) -> None:
    (root / "params.yaml").write_text(
        yaml.safe_dump({"scale": "mini", "seeds": 2, "launcher": "local", "tables": [MANY]})
    )
    mini, small = read_results(root), read_results(root, "small_earlier")
    assert list(mini.records) == [MANY]
    assert {cell["n"] for cell in (c for _, _, c in cells(mini.records[MANY])) if cell["n"]} == {2}
    assert {len(run["seeds"]) for run in mini.runs.values()} - {0} == {2}
    assert TOGETHER in small.records
    assert max(len(run["seeds"]) for run in small.runs.values()) == 8


def test_pages_without_results_and_without_measurements(root: Path) -> None:
    before = read_results(root)
    shutil.rmtree(root / "measured")
    assert read_results(root) == before  # hence an unchanged result makes no figure new
    assert "hardware" not in next(iter(before.runs.values()))["seeds"]["0"]
    page.render(root)
    shutil.rmtree(root / "results")
    found = page.render(root)
    assert "Nothing was run of the protocol on photographs (scale small)" in found["index.html"]
    assert "mini scale: not run" in found["lumix.html"]
    assert main(["tables"], root) == main(["page"], root) == 0


def test_the_readme_says_what_the_results_say() -> None:
    text = (ROOT / "README.md").read_text()
    assert findings.renewed(text, ROOT) == text, "run python -m report readme"


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
    assert {f"report/{name}" for name in page.PAGES} == set(STAGES["report"]["outs"])
    reading = [name for name, stage in STAGES.items() if "measured" in stage.get("deps", ())]
    assert reading == ["tables", "costs", "report"]


def test_what_training_depends_on_is_whole_rooms_and_no_more() -> None:
    stage = STAGES["results"]
    assert set(stage["deps"]) == {"lumix", "training", "evaluation", "experiments"}
    ignored = (ROOT / ".dvcignore").read_text().splitlines()
    kept = [line for line in ignored if line.startswith(tuple(stage["deps"]))]
    assert kept == ["experiments/*/README.md", "lumix/integrations"]
    outs = [next(iter(out)) for out in stage["outs"]]
    assert outs == ["runs/${scale}", "results/${scale}", "measured/${scale}"]
