"""Results of a benchmark run: gathered row by row, printed as they come, written as JSON and Markdown."""

import importlib
import math
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Setting, settle_allocator
from benchmarks.rows import Row, Skipped
from training.process import commit, hardware

RESULTS = Path(__file__).parent / "results"
# Names of rows and their modules, in the order of the page.
ROWS = {
    "cutmix": "cutmix",
    "mixup": "mixup",
    "loss": "loss",
    "loss-memory": "loss_memory",
    "puzzle": "puzzle",
    "table6": "table6",
    "automix": "automix",
    "ensemble": "ensemble",
    "small": "small",
    "input": "input",
    "start-up": "start_up",
}
QUICK_ROWS = ("cutmix", "mixup", "loss", "loss-memory", "puzzle", "ensemble", "start-up")


def run_row(name: str, setting: Setting) -> dict[str, Any]:
    """One row as JSON: its cases, or why there are none. In a quick run a row that fails is tried once more."""
    row: Row = importlib.import_module(f"benchmarks.{ROWS[name]}")
    started = time.perf_counter()
    entry: dict[str, Any] = {"name": name, "title": row.TITLE, "peers": row.PEERS, "status": "done", "reason": ""}
    try:
        cases = [case.as_json(setting.quick) for case in row.cases(setting)]
        if setting.quick and not passed(cases):
            again = [case.as_json(True) for case in row.cases(setting)]
            cases = [second if passed([second]) else first for first, second in zip(cases, again, strict=True)]
        entry["status"] = "done" if passed(cases) else "below target"
    except Skipped as reason:
        cases, entry["status"], entry["reason"] = [], "skipped", str(reason)
    except AssertionError as difference:
        cases, entry["status"] = [], "not equal"
        entry["reason"] = str(difference).strip().replace("\n", " ") or "an equality check failed"
    return entry | {"seconds": round(time.perf_counter() - started, 1), "cases": cases}


def passed(cases: list[dict[str, Any]]) -> bool:
    return all(goal["passed"] for case in cases for goal in case["goals"])


def run(names: list[str], setting: Setting) -> dict[str, Any]:
    """The rows one after the other, printed as they come."""
    torch.set_num_threads(setting.threads)
    device = torch.cuda.get_device_name() if setting.device == "cuda" else "cpu"
    settle_allocator()
    rows = []
    for name in names:
        rows.append(run_row(name, setting))
        print(row_markdown(rows[-1], setting.clock), flush=True)
    machine = hardware(device)
    return {
        "schema": 1,
        "device": device if setting.device == "cuda" else machine["cpu"],
        "hardware": machine,
        **commit(),
        "threads": setting.threads,
        "clock": setting.clock,
        "rounds": setting.rounds,
        "quick": setting.quick,
        "rows": rows,
    }


def slug(record: dict[str, Any]) -> str:
    """A file name for the device: "amd-epyc-2-cores", "nvidia-h100-80gb-hbm3"."""
    cores = "" if record["hardware"]["device"] != "cpu" else f" {record['hardware']['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", (record["device"] + cores).lower()).strip("-")


# ------------------------------------------------------------------------------------------------- Markdown


def number(value: float) -> str:
    """Three digits that matter."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}".replace(",", " ")


def spread(value: dict[str, float], unit: str = "") -> str:
    """Median and quartiles: "12.3x (11.9 to 12.8)"."""
    if value["n"] == 1:
        return f"{number(value['median'])}{unit}"
    return f"{number(value['median'])}{unit} ({number(value['low'])} to {number(value['high'])})"


def target(goal: dict[str, Any], limit: str = "target") -> str:
    if goal[limit] is None:
        return ""
    return f"{'≤' if goal['at_most'] else '≥'} {goal[limit]:g}{goal['unit']}"


def verdict(goal: dict[str, Any]) -> str:
    if goal["target"] is None:
        return ""
    return "reached" if goal["reached"] else "**not reached**"


def row_markdown(row: dict[str, Any], clock: str) -> str:
    """A row as two tables: times of all rivals, numbers with targets; below them why a target was missed."""
    lines = [f"### {row['title']}", ""]
    if row["status"] in ("skipped", "not equal"):
        return "\n".join([*lines, f"{row['status'].capitalize()}: {row['reason']}", ""])
    lines += [f"Peers: {row['peers']}.", ""]
    names = list(dict.fromkeys(name for case in row["cases"] for name in case["values"]))
    unit = row["cases"][0]["unit"]
    by = f", {clock}" if unit in ("ms", "s") else ""
    lines += [f"| {unit}{by} | {' | '.join(names)} | rounds |", "| --- |" + " --- |" * (len(names) + 1)]
    for case in row["cases"]:
        cells = [spread(case["values"][name]) if name in case["values"] else "-" for name in names]
        rounds = min(value["n"] for value in case["values"].values())
        lines.append(f"| {case['title']} | {' | '.join(cells)} | {rounds} |")
    lines += ["", "| | number | measured | target | |", "| --- | --- | --- | --- | --- |"]
    notes: dict[str, None] = {}
    for case in row["cases"]:
        for goal in case["goals"]:
            measured = spread(goal["value"], goal["unit"])
            lines.append(f"| {case['title']} | {goal['text']} | {measured} | {target(goal)} | {verdict(goal)} |")
            if goal["why"] and not goal["reached"]:
                notes[f"{case['title']}, {goal['text']}: {goal['why']}."] = None
        for name, reason in case["skipped"].items():
            notes[f"{case['title']}: {name} did not take part: {reason}."] = None
    return "\n".join([*lines, "", *notes, *([""] if notes else [])])


def markdown(record: dict[str, Any]) -> str:
    """The whole record: machine, versions, rows."""
    machine = record["hardware"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "timm", "torchvision", "python"))
    dirty = " with changes" if record["dirty"] else ""
    lines = [
        f"## {record['device']}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {record['threads']} thread; {versions}; commit "
        f"{(record['commit'] or 'unknown')[:12]}{dirty}. Medians with quartiles; {record['clock']} decides.",
        "",
    ]
    return "\n".join([*lines, *(row_markdown(row, record["clock"]) for row in record["rows"])])


def summary(record: dict[str, Any]) -> list[str]:
    """What failed, in one line each."""
    lines = []
    for row in record["rows"]:
        if row["status"] in ("skipped", "not equal"):
            lines.append(f"{row['name']}: {row['status']}: {row['reason']}")
        for case in row["cases"]:
            for goal in case["goals"]:
                if not goal["passed"]:
                    measured = spread(goal["value"], goal["unit"])
                    wanted = target(goal, "limit" if record["quick"] else "target")
                    lines.append(f"{row['name']}, {case['title']}: {goal['text']} {measured}, not {wanted}")
    return lines


def complain(message: str) -> None:
    print(f"benchmarks: {message}", file=sys.stderr)
