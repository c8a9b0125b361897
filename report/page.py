"""report/index.html: one static page from the results, the register of contradictions and the figures."""

import re
from pathlib import Path
from typing import Any

from experiments.scale import NAMES
from report import formatting, headline
from report.html import environment, fragment
from report.load import Results, all_results, cells

FIGURES = {
    "figure1_label_error": (
        "Figure 1 of the paper, made quantitative",
        "CutMix images of the shapes set, which has exact masks: the pasted share of the area (λ0), what a small "
        "network predicts (λs), the label weight of LUMix (λ), and the true visible share of the pasted object; below, "
        "how far each is from the truth over thousands of pairs. One network, trained inside the notebook; the "
        "intervals are over images.",
    ),
    "gain_per_model": (
        "Gain of LUMix per model (Table 1)",
        "Our gain of LUMix over CutMix with its 95 % interval at this scale, and the paper’s gain on ImageNet as a "
        "hollow mark. Both axes are points of top-1, but on different data.",
    ),
    "gain_against_cost": (
        "Gain against cost (Table 6)",
        "Points of top-1 over the baseline of the backbone against the training time of a step as a multiple of the "
        "baseline’s, with 95 % intervals of the gain and the standard deviation of the cost over seeds; hollow marks "
        "are the paper’s, on ImageNet and a V100. Speeds are of this scale’s own nets and device.",
    ),
    "lambda_laws": (
        "The laws of λr and what they do (Table 10)",
        "Left: the laws that λr is drawn from. Right: the difference of each to CutMix with its 95 % interval, and the "
        "paper’s difference on ImageNet as a hollow mark.",
    ),
    "training_curves": (
        "Training curves of the headline runs",
        "Top-1 on clean test images per epoch and mean perturbation |λ − λ0| of the labels for CutMix, LUMix and the "
        "constant control: mean and standard deviation over seeds.",
    ),
    "attention_maps": (
        "Masks and boxes from attention (Table 5)",
        "The first test images with the patches that hold 90 % of the class token’s attention in the last block lit, "
        "the box around them, and the true box dashed; of each model’s heads the one whose box fits best. Seed 0.",
    ),
    "segmentations": (
        "Segmentations beside their truth (Table 4)",
        "The first test scenes, their true classes, and the classes that each model of seed 0 finds at one scale.",
    ),
    "localisation_grid": (
        "Boxes from attention under every declared setting (Table 5)",
        "Mean IoU of the box around the attended patches with the true box, for every share of attention, choice of "
        "head and region that was declared beforehand; mean and standard deviation over seeds. The best head is chosen "
        "with the truth in sight.",
    ),
    "calibration": (
        "Confidence on natural adversarial images (Table 8)",
        "Left: accuracy against confidence, the images of all seeds together; the area of a mark is its share of "
        "images. Right: accuracy of the most confident share of images, mean and standard deviation over seeds; AURRA "
        "is the area below.",
    ),
    "occlusion_curves": (
        "Accuracy when patches are dropped or shuffled (Tables 9 and 7)",
        "Top-1 against the information lost when patches are set to zero, in every mode that we measure, and against "
        "the number of patches shuffled: mean and standard deviation over seeds. Grey: the paper’s numbers, which are "
        "of ImageNet and which it has for the least attended patches by mass and for shuffling only.",
    ),
    "decoupled_path": (
        "Decoupled Mixup: another path, the same end (Propositions 1 and 2)",
        "Gradient descent on free logits of ten classes for an image mixed with λ = 0.7. Left: the decoupled term "
        "gathers the mass of both classes in fewer updates. Right: with mixed cross entropy in the sum every η ends "
        "at λ; the decoupled term alone keeps both classes equal. Computed, not trained: no data, no seeds.",
    ),
    "learned_masks": (
        "What learned masks show",
        "Masks that AutoMix and SAMix learned on scenes of shapes, whose objects are known, beside CutMix’s and "
        "Puzzle-Mix’s for the same pairs; below, how much of both objects is to be seen in 1000 mixtures of label "
        "weight ½. One training of each, of 320 updates, inside the notebook: masks stay nearly flat. The intervals "
        "are over pairs.",
    ),
    "decoupled_mixed": (
        "Accuracy on mixed images while a network trains (Figure A1)",
        "After every epoch each test image is mixed with another by the method itself. Top-1 counts one of the two "
        "classes, top-2 both. Mean and standard deviation over seeds; the paper prints no numbers.",
    ),
    "decoupled_parameters": (
        "η of DM(CE), ξ and t of DM(BCE) (Figure A2)",
        "Top-1 over the parameters of Decoupled Mixup’s losses with 95 % intervals of the mean over seeds. The paper "
        "prints no numbers: triangles mark where it finds each method best.",
    ),
    "decoupled_eta": (
        "η of DM(CE) on three data sets (Figure A3)",
        "Top-1 over η with 95 % intervals of the mean over seeds; triangles mark the η that the paper’s appendix B.3 "
        "sets for each method. The names are of the paper’s data, for which this scale has its own.",
    ),
    "robustness_sheet": (
        "Dropped and shuffled test images (Tables 9 and 7)",
        "The first test images, as they are, with random patches set to zero (crossed out), and shuffled on each grid "
        "of this scale; the draws are those of the evaluation. Lines: the borders of the patches.",
    ),
}
# The table that a figure stands under, on the page's first scale; the others have a section of their own.
UNDER = {
    "gain_per_model": "lumix_table01_models",
    "segmentations": "lumix_table04_segmentation",
    "attention_maps": "lumix_table05_localisation",
    "localisation_grid": "lumix_table05_localisation",
    "gain_against_cost": "lumix_table06_rivals",
    "robustness_sheet": "lumix_table07_shuffling",
    "calibration": "lumix_table08_natural",
    "occlusion_curves": "lumix_table09_occlusion",
    "lambda_laws": "lumix_table10_laws",
    "training_curves": "lumix_controls",
    "decoupled_path": "dm_table04_losses",
    "decoupled_mixed": "dm_figure01_mixed",
    "learned_masks": "dm_figure01_mixed",
    "decoupled_parameters": "dm_figure02_eta",
    "decoupled_eta": "dm_figure03_eta",
}
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
    """Every figure of the page, and whether its PNG is there."""
    return [
        {
            "name": name,
            "title": title,
            "caption": caption,
            "under": UNDER.get(name),
            "exists": (folder / f"{name}.png").exists(),
        }
        for name, (title, caption) in FIGURES.items()
    ]


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
