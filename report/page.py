"""The pages of the report: what was found, a page a paper, the register of contradictions, what made each number."""

import json
import re
from pathlib import Path
from typing import Any

from experiments.params import read_params
from experiments.scale import NAMES, PHOTOGRAPHS, get_scale
from report import findings, formatting
from report.html import environment, fragment
from report.load import Results, all_results, cells

PAGES = {
    "index.html": "Findings",
    "lumix.html": formatting.PAPERS["lumix"],
    "decoupled.html": formatting.PAPERS["dm"],
    "register.html": "Contradictions",
    "runs.html": "Runs",
}
# Each figure, in the order of the pages, and the table or the page that it stands under; those of tables show the scale
# of params.yaml, or photographs. A figure's title and caption are the first cell of its notebook.
FIGURES = {
    "primary_claims": "index.html",
    "figure1_label_error": "lumix.html",
    "photographs_controls": "lumix_photographs_controls",
    "photographs_masks": "lumix_photographs_controls",
    "gain_per_model": "lumix_table01_models",
    "gain_against_cost": "lumix_table06_rivals",
    "lambda_laws": "lumix_table10_laws",
    "training_curves": "lumix_controls",
    "attention_maps": "lumix_table05_localisation",
    "segmentations": "lumix_table04_segmentation",
    "localisation_grid": "lumix_table05_localisation",
    "calibration": "lumix_table08_natural",
    "occlusion_curves": "lumix_table09_occlusion",
    "robustness_sheet": "lumix_table07_shuffling",
    "decoupled_path": "dm_table04_losses",
    "learned_masks": "dm_figure01_mixed",
    "decoupled_mixed": "dm_figure01_mixed",
    "decoupled_parameters": "dm_figure02_eta",
    "decoupled_eta": "dm_figure03_eta",
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


def figure_files(folder: Path) -> list[dict[str, Any]]:
    """Every figure with its title and caption, what it stands under, and whether its PNG is there."""
    found = []
    for name, under in FIGURES.items():
        cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        title, caption, *_ = "".join(cells[0]["source"]).removeprefix("# ").split("\n\n")
        exists = (folder / f"{name}.png").exists()
        found.append(
            {"name": name, "title": title, "caption": caption.replace("\n", " "), "under": under, "exists": exists}
        )
    return found


def views_of(every: list[Results]) -> list[dict[str, Any]]:
    """What the pages show of each scale: its runs, what was not run, and its tables by the page that they are on."""
    views = []
    for results in every:
        scale, lines = get_scale(results.scale), provenance(results)
        asked = {claim["id"]: one.paper for one, claim in results.primary if claim}
        pages: dict[str, list[dict[str, str]]] = {}
        for table in results.tables:
            record = results.records.get(table)
            shown = {"id": table, "heading": formatting.heading(record) if record else table}
            shown["html"] = fragment(table, record, results.scale)
            papers = {asked.get(claim["id"], "") for claim in record["claims"]} if record else set()
            for paper in {table.split("_")[0], *papers} & formatting.PAPERS.keys():
                pages.setdefault(formatting.PAPERS[paper], []).append(shown)
        views.append(
            {
                "scale": results.scale,
                "text": scale.text,
                "exercises": scale.exercises,
                "pages": pages,
                "provenance": lines,
                "seconds": sum(line["seconds"] for line in lines),
                "not_run": not_run(results),
            }
        )
    return views


def render(root: Path) -> dict[str, str]:
    """File -> text of every page; depends on nothing but the files it reads, so that equal results give equal bytes."""
    every = all_results(root, measured=True)
    shown = {results.scale for results in every if results.records}
    context = {
        "pages": PAGES,
        "views": views_of(every),
        "drawn": read_params(root / "params.yaml").scale,
        "figures": figure_files(root / "report" / "figures"),
        "photographs": PHOTOGRAPHS,
        "found": findings.find(every),
        "unjudged": findings.unjudged,
        "lead": findings.lead(every),
        "told": {name: findings.told(every, paper) for paper, name in formatting.PAPERS.items()},
        "register": read_register(root / "docs" / "deviations.md"),
        "papers": PAPERS,
        "scales_without_results": [scale for scale in reversed(NAMES) if scale not in shown],
    }
    templates = {"lumix.html": "paper.html.j2", "decoupled.html": "paper.html.j2"}
    return {
        file: environment().get_template(templates.get(file, f"{file}.j2")).render(context, here=file, name=name)
        for file, name in PAGES.items()
    }
