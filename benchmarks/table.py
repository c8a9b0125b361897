"""The one table of a benchmark run: filled row by row, written as CSV with its machine, shown on a page of docs."""

import importlib
import json
import math
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from benchmarks.measure import Line, Setting, Skipped, settle_allocator
from training.process import commit, hardware
from training.run_directory import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "performance.md"
GENERATED = "<!-- Below this line: python -m benchmarks page -->\n"
NUMBERS = ("low", "median", "high", "target", "limit")
UNEQUAL, FAILED, SKIPPED = "not equal", "failed", "skipped"  # the case of a row without numbers


class Row(NamedTuple):
    """A function of `benchmarks` that checks equality (AssertionError), measures, and yields lines."""

    function: str
    title: str
    peers: str


MIXERS = "timm's Mixup (elem, pair, batch)"
ROWS = {
    "cutmix": Row("mixing.cutmix", "CutMix", f"{MIXERS}, torchvision v2.CutMix (one box), the copy of a batch"),
    "mixup": Row("mixing.mixup", "Mixup", f"{MIXERS}, torchvision v2.MixUp (one weight), the copy of a batch"),
    "loss": Row(
        "loss.loss",
        "LUMix loss and DM(CE), forward and backward",
        "Algorithm 1 as printed, timm's mixup_target with SoftTargetCrossEntropy, cross entropy with label smoothing",
    ),
    "loss-memory": Row("loss.memory", "Memory of the loss above the logits", "as for the loss"),
    "puzzle": Row(
        "puzzle.puzzle",
        "Puzzle-Mix without the network: mask and transport",
        "the published algorithm, written plainly, with exact cuts by SciPy",
    ),
    "automix": Row(
        "steps.automix",
        "Training steps of mixers that learn",
        "CutMix, in the same process; the published cost is about 3 plain steps",
    ),
    "ensemble": Row(
        "steps.ensemble",
        "A step of many networks as one ensemble",
        "the same networks, images and draws, one after another",
    ),
    "small": Row(
        "steps.small",
        "A training step of scale small",
        "the plainest loop: CutMix by hand, autocast, cross entropy, backward pass, torch's SGD; augmentation as here",
    ),
    "start-up": Row("start_up.start_up", "Start-up", "import torch"),
}
QUICK_ROWS = ("cutmix", "mixup", "loss", "loss-memory", "puzzle", "ensemble", "start-up")


def missed(lines: pd.DataFrame, limit: str = "target") -> "pd.Series[bool]":
    """Which lines have a target, or the limit of a quick run, and do not reach it."""
    above, below = lines["median"] > lines[limit], lines["median"] < lines[limit]
    return above.where(lines["at_most"], below)


def run_row(name: str, setting: Setting) -> pd.DataFrame:
    """One row; in a quick run a number that fails is measured once more."""
    module, function = ROWS[name].function.split(".")

    def lines() -> Iterable[Line]:
        try:
            yield from getattr(importlib.import_module(f"benchmarks.{module}"), function)(setting)
        except Exception as error:  # the rows before and after it are kept
            case = SKIPPED if isinstance(error, Skipped) else UNEQUAL if isinstance(error, AssertionError) else FAILED
            if case == FAILED:
                traceback.print_exc()
            text = str(error).strip().replace("\n", " ").replace(f"{ROOT}/", "")  # no folder of a machine
            yield Line(case, why=text or type(error).__name__)

    found = pd.DataFrame(lines(), columns=Line._fields)
    if setting.quick and missed(found, "limit").any():
        again = pd.DataFrame(lines(), columns=Line._fields)
        better = missed(found, "limit") & ~missed(again.reindex(found.index), "limit")
        found = again if again["median"].isna().any() else found.where(~better, again)
    found.insert(0, "row", name)
    return found


def run(names: Iterable[str], setting: Setting) -> tuple[dict[str, Any], pd.DataFrame]:
    """The rows one after the other, printed as they come: the machine, and all lines."""
    torch.set_num_threads(setting.threads)
    machine = hardware(torch.cuda.get_device_name() if setting.device == "cuda" else "cpu")
    settle_allocator()
    parts = []
    for name in names:
        parts.append(run_row(name, setting))
        print(row_markdown(parts[-1]), flush=True)
    machine |= {**commit(), "threads": setting.threads, "clock": setting.clock}
    return machine, pd.concat(parts, ignore_index=True)


def slug(machine: dict[str, Any]) -> str:
    """A file name for the device: "amd-epyc-2-cores", "nvidia-h100-80gb-hbm3"."""
    device = f"{machine['cpu']} {machine['cores']} cores" if machine["device"] == "cpu" else machine["device"]
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def write(path: Path, machine: dict[str, Any], lines: pd.DataFrame) -> None:
    """The machine as JSON in the first line, a comment; then CSV."""
    text = lines.to_csv(index=False, float_format="%.4g", lineterminator="\n")
    write_text(path, f"# {json.dumps(machine)}\n{text}")


def read(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    machine = json.loads(path.read_text().split("\n", 1)[0].removeprefix("# "))
    empty = dict.fromkeys(NUMBERS, "")  # there nothing is no number, elsewhere a text
    return machine, pd.read_csv(path, skiprows=1, keep_default_na=False, na_values=empty)


# ------------------------------------------------------------------------------------------------- Markdown


def three_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return str(value)
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}".replace(",", " ")


def shown(line: Any) -> str:
    """Median and quartiles: "12.3x (11.9 to 12.8)"."""
    unit = "" if line.rival else line.unit
    low, median, high = (three_digits(value) for value in (line.low, line.median, line.high))
    return f"{median}{unit}" if line.n == 1 else f"{median}{unit} ({low} to {high})"


def wanted(line: Any, value: float) -> str:
    """A target as text: "≥ 8x"; "" for none."""
    return "" if np.isnan(value) else f"{'≤' if line.at_most else '≥'} {value:g}{line.unit}"


def row_markdown(lines: pd.DataFrame) -> str:
    """A row as two tables: what all rivals take, numbers with targets; below them why a target was missed."""
    row = ROWS[lines["row"].iloc[0]]
    head = f"### {row.title}\n\n"
    if lines["median"].isna().any():
        void = lines[lines["median"].isna()].iloc[0]
        return f"{head}{void['case'].capitalize()}: {void['why']}\n"
    lines = lines.assign(shown=[shown(line) for line in lines.itertuples()])
    rivals, ratios = lines[lines["rival"]], lines[~lines["rival"]]
    cases, names = rivals["case"].unique(), rivals["number"].unique()
    wide = rivals.pivot(index="case", columns="number", values="shown").loc[cases, names].fillna("-")
    wide.insert(len(names), "rounds", rivals.groupby("case")["n"].min())
    wide.index.name = rivals["unit"].iloc[0]
    late = missed(ratios)
    ratios = ratios.assign(
        target=[wanted(line, line.target) for line in ratios.itertuples()],
        verdict=np.where(late, "**not reached**", np.where(ratios["target"].isna(), "", "reached")),
    ).rename(columns={"shown": "measured"})
    why = dict.fromkeys(f"{line.case}, {line.number}: {line.why}.\n" for line in ratios[late].itertuples() if line.why)
    table = ratios[["case", "number", "measured", "target", "verdict"]].to_markdown(index=False)
    return f"{head}Peers: {row.peers}.\n\n{wide.to_markdown()}\n\n{table}\n" + "".join(f"\n{reason}" for reason in why)


def markdown(machine: dict[str, Any], lines: pd.DataFrame) -> str:
    """The whole record: machine, versions, rows."""
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "timm", "torchvision", "python"))
    dirty = " with changes" if machine["dirty"] else ""
    device = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
    head = (
        f"## {device}\n\n{machine['cpu']}, {machine['cores']} cores, {machine['threads']} thread; {versions}; commit "
        f"{(machine['commit'] or 'unknown')[:12]}{dirty}. Medians with quartiles; {machine['clock']} decides.\n"
    )
    return "\n".join([head, *(row_markdown(part) for _, part in lines.groupby("row", sort=False))])


def page() -> str:
    """docs/performance.md: what is written by hand, then the sections of the committed results."""
    head = PAGE.read_text().split(GENERATED)[0] + GENERATED
    return "\n".join([head, *(markdown(*read(path)) for path in sorted(RESULTS.glob("*.csv")))])


def write_page() -> str:
    write_text(PAGE, page())
    return str(PAGE.relative_to(ROOT))
