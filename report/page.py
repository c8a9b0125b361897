"""report/index.html: one static page from the results, the register of contradictions and the figures."""

import json
import re
from pathlib import Path
from typing import Any

from experiments.scale import NAMES
from report import formatting, headline
from report.html import environment, fragment
from report.load import Results, all_results, cells

# Each figure, in the order of the page, and the table that it stands under on the page's first scale; those without one
# have a section of their own. A figure's title and caption are the first cell of its notebook.
FIGURES = {
    "figure1_label_error": None,
    "gain_per_model": "lumix_table01_models",
    "gain_against_cost": "lumix_table06_rivals",
    "lambda_laws": "lumix_table10_laws",
    "training_curves": "lumix_controls",
    "attention_maps": "lumix_table05_localisation",
    "segmentations": "lumix_table04_segmentation",
    "localisation_grid": "lumix_table05_localisation",
    "calibration": "lumix_table08_natural",
    "occlusion_curves": "lumix_table09_occlusion",
    "decoupled_path": "dm_table04_losses",
    "learned_masks": "dm_figure01_mixed",
    "decoupled_mixed": "dm_figure01_mixed",
    "decoupled_parameters": "dm_figure02_eta",
    "decoupled_eta": "dm_figure03_eta",
    "robustness_sheet": "lumix_table07_shuffling",
}
NOTEBOOKS = Path(__file__).parent.parent / "paper_figures"
PAPERS = {"I": "LUMix (Sun et al. 2022)", "D": "Decoupled Mixup (Liu et al. 2022)"}  # by the letter of their numbers
REGISTER_LINE = re.compile(r"^\| ([ID]-\d+[a-z]?) \|(.*)\|\s*$")


def read_register(path: Path) -> list[dict[str, Any]]:
    """The numbered lines of docs/deviations.md: number, and (heading, text) of each of its columns."""
    entries: list[dict[str, Any]] = []
    titles: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("| # |"):
            titles = [part.strip() for part in line.strip("| ").split("|")][1:]
        elif match := REGISTER_LINE.match(line):
            texts = [part.strip().replace("**", "").replace("`", "") for part in match[2].split(" | ")]
            entries.append({"number": match[1], "fields": list(zip(titles, texts, strict=True))})
    return entries


def provenance(results: Results) -> list[dict[str, Any]]:
    """One line per run: what it was, who owns it, what it cost, where, and the checksums of its weights."""
    lines = []
    for key, run in results.runs.items():
        seeds = run["seeds"]
        done = [seed for seed in seeds.values() if "hardware" in seed]  # measured/ may lack what results/ has
        rates = [seed["images_per_second"] for seed in done]
        hardware = [
            f"{seed['hardware']['device']}: {seed['hardware']['cpu']}, {seed['hardware']['cores']} cores, "
            f"torch {seed['hardware']['torch']}, timm {seed['hardware']['timm']}"
            for seed in done
        ]
        lines.append(
            {
                "key": key,
                "summary": formatting.summary(run["config"]),
                "owner": run["owner"],
                "seeds": formatting.joined([f"{int(seed):2d}" for seed in seeds]).replace("  ", " ").strip(),
                "seconds": sum(seed["seconds"] for seed in done),
                "rate": sum(rates) / len(rates) if rates else None,
                "commits": formatting.joined(
                    [f"{(s['commit'] or 'no commit')[:9]}{' + changes' if s['dirty'] else ''}" for s in done]
                ),
                "hardware": formatting.joined(hardware),
                "checksums": ", ".join(f"{seed}: {result['checksum'][:8]}" for seed, result in seeds.items()),
            }
        )
    return lines


def not_run(results: Results) -> list[tuple[str, str]]:
    """(what, why) for every table and cell of this scale without a number or with fewer seeds than planned."""
    found = [(table, "no results file") for table in results.missing]
    for table, record in results.records.items():
        reasons: dict[str, int] = {}
        for _, _, cell in cells(record):
            if cell["status"] != "done" or cell.get("reason"):
                why = f"{cell['status']}{': ' + cell['reason'] if cell.get('reason') else ''}"
                reasons[why] = reasons.get(why, 0) + 1
        found += [(f"{table}: {count} cells", why) for why, count in sorted(reasons.items())]
    return found


def verdicts(results: Results) -> dict[str, int]:
    """How many claims got each verdict, in the order of formatting.VERDICTS."""
    found = [claim["verdict"] for record in results.records.values() for claim in record["claims"]]
    return {verdict: found.count(verdict) for verdict in formatting.VERDICTS}


def figure_files(folder: Path) -> list[dict[str, Any]]:
    """Every figure of the page with its title and caption, and whether its PNG is there."""
    found = []
    for name, table in FIGURES.items():
        cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        title, caption, *_ = "".join(cells[0]["source"]).removeprefix("# ").split("\n\n")
        exists = (folder / f"{name}.png").exists()
        found.append(
            {"name": name, "title": title, "caption": caption.replace("\n", " "), "under": table, "exists": exists}
        )
    return found


def scale_view(results: Results) -> dict[str, Any]:
    """All that the template shows of one scale."""
    found = headline.find(results)
    cards, runs = headline.cards(results, found), results.runs
    used = {key: runs[key] for card in cards for key in card.runs if key}
    lines = provenance(results)
    return {
        "scale": results.scale,
        "headline": found,
        "cards": cards,
        "headline_badge": formatting.badge(results.scale, {"runs": used}),
        "reading": headline.reading(found.gain),
        "verdicts": verdicts(results),
        "records": results.records,
        "tables": results.tables,
        "papers": _by_paper(results),
        "provenance": lines,
        "seconds": sum(line["seconds"] for line in lines),
        "not_run": not_run(results),
    }


def _by_paper(results: Results) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(anchor, paper, [(table, its fragment)]), the papers in the order of their first table."""
    found: dict[str, list[tuple[str, str]]] = {}
    for table in results.tables:
        text = fragment(table, results.records.get(table), results.scale)
        found.setdefault(formatting.paper_of(table), []).append((table, text))
    return [(f"{results.scale}-{paper.split()[0].lower()}", paper, tables) for paper, tables in found.items()]


def render(root: Path) -> str:
    """The whole page as text; depends on nothing but the files it reads, so that equal results give equal bytes."""
    views = [scale_view(results) for results in all_results(root)]
    shown = {view["scale"] for view in views if view["records"]}
    template = environment().get_template("page.html.j2")
    return template.render(
        views=views,
        figures=figure_files(root / "report" / "figures"),
        papers=PAPERS,
        register=read_register(root / "docs" / "deviations.md"),
        scales_without_results=[scale for scale in NAMES if scale not in shown],
        paper_gain=headline.PAPER_GAIN,
    )
