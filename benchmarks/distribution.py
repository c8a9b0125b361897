"""Whether seeds end alike as members of an ensemble and alone: both are trained here, and their accuracies tested.

    python -m benchmarks.distribution    about ten minutes on two cores; benchmarks/distribution.json, then `page`

In exact arithmetic a member is the run alone (tests hold it to 1e-10 in float64). In float32 sums of another order send
single trainings apart, so what can be equal is the distribution over seeds.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from scipy import stats

from experiments.intervals import holm, t_interval
from experiments.pool import Job, run_pool, usable_cores
from experiments.registry import get_table, seeds_of
from experiments.runs import Group, Item
from experiments.scale import get_scale
from training.config import Execution
from training.process import commit, hardware
from training.run_directory import write_json

PATH = Path(__file__).with_name("distribution.json")
CELLS = {  # title -> table and cell at mini scale
    "CutMix, residual net": ("dm_with_lumix", ("cutmix", "top1")),
    "LUMix on CutMix, residual net": ("dm_with_lumix", ("lumix", "top1")),
    "Mixup, 15 % of the labels": ("dm_table08_limited_labels", ("mixup_15", "mce")),
    "CutMix under DM(CE), 15 %": ("dm_table08_limited_labels", ("cutmix_15", "dm_ce")),
    "DeiT-S": ("lumix_table02_components", ("none", "top1")),
    "DeiT-S, LUMix": ("lumix_table02_components", ("full", "top1")),
}
WAYS = ("together", "alone")


def main() -> None:
    scale = get_scale("mini")
    with tempfile.TemporaryDirectory() as folder:
        runs = {title: get_table(table, scale).cells[cell] for title, (table, cell) in CELLS.items()}
        items = {
            (title, way): [Item(run, seed, Path(folder, way, run.key, str(seed))) for seed in seeds_of(scale, run)]
            for title, run in runs.items()
            for way in WAYS
        }
        jobs: list[Job] = []
        for (_, way), every in items.items():
            blocks = [tuple(every[start : start + scale.stacked]) for start in range(0, len(every), scale.stacked)]
            jobs += [Group(block, block) for block in blocks] if way == "together" else every
        top1: dict[tuple[Path, int], float] = {}
        for answer in run_pool(jobs, Execution(), usable_cores()):
            if answer.result is None or not isinstance(answer.item, Item):
                sys.exit(f"{answer.item}: {answer.error}")
            top1[answer.item.directory, answer.item.seed] = float(answer.result["top1"]["last"])
    values = {pair: [top1[item.directory, item.seed] for item in every] for pair, every in items.items()}
    together, alone = ({title: values[title, way] for title in runs} for way in WAYS)
    record = {"hardware": hardware("cpu"), **commit(), "rows": rows(together, alone)}
    write_json(PATH, record)
    print("\n".join(lines(record)))


def rows(together: dict[str, list[float]], alone: dict[str, list[float]]) -> list[dict[str, Any]]:
    """For each title: n, both means and deviations, the paired difference, and the Kolmogorov-Smirnov p-value.

    Means and deviations are in points of accuracy; "corrected" is the p-value after Holm's correction over the titles.
    """
    found: list[dict[str, Any]] = []
    for title, values in together.items():
        others = alone[title]
        interval = t_interval([a - b for a, b in zip(values, others, strict=True)])
        found.append(
            {
                "title": title,
                "n": len(values),
                "together": [round(float(f(values)), 3) for f in (stats.tmean, stats.tstd)],
                "alone": [round(float(f(others)), 3) for f in (stats.tmean, stats.tstd)],
                "difference": [interval.mean, interval.low, interval.high],
                "p": float(stats.ks_2samp(values, others).pvalue),
            }
        )
    corrected = holm([float(row["p"]) for row in found])
    return [{**row, "corrected": value} for row, value in zip(found, corrected, strict=True)]


def lines(record: dict[str, Any]) -> list[str]:
    """The record as Markdown."""
    machine = record["hardware"]
    head = [
        "## Seeds in an ensemble and alone",
        "",
        f"Accuracies at mini scale of the same seeds, trained both ways on {machine['cpu']} (`python -m "
        f"benchmarks.distribution`, commit {record['commit'][:7]}). Mean and standard deviation over n seeds, the "
        "paired difference with its 95 % interval, and the p-value of the two-sample Kolmogorov-Smirnov test that both "
        "distributions are one, as it is and by Holm's correction.",
        "",
        "| runs | n | in an ensemble | alone | difference | p | corrected |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        (mean, std), (other_mean, other_std), (value, low, high) = row["together"], row["alone"], row["difference"]
        interval = f"{value:+.2f}" + ("" if low is None else f" [{low:+.2f}, {high:+.2f}]")
        both = f"{mean:.2f} ± {std:.2f} | {other_mean:.2f} ± {other_std:.2f}"
        head.append(f"| {row['title']} | {row['n']} | {both} | {interval} | {row['p']:.2f} | {row['corrected']:.2f} |")
    return [*head, ""]


if __name__ == "__main__":
    main()
