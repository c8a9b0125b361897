"""Plain text for a terminal: tables, recipes, states and costs. Reads records and run directories, trains nothing."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from experiments import formatting
from experiments.registry import owners, tables_of
from experiments.results import flat
from experiments.runs import FINISHED, OLDER, Item, evaluation_items, items_of, state
from experiments.scale import Scale
from experiments.table import Column, Row, Table
from training.config import Run


def grid(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rows = [header, ["-" * width for width in widths], *lines]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def recipe(run: Run) -> str:
    """The base recipe of a run in one line."""
    data, model, optim, mix, loss = run.data, run.model, run.optim, run.mix, run.loss
    size = f" (first {data.train_size})" if data.train_size else f" (first {data.share:.0%})" if data.share < 1 else ""
    size += f" ({data.labels} labels)" if data.labels else ""
    steps = f" of {run.epoch_steps} updates" if run.epoch_steps else ""
    parts = [
        f"{data.name} {data.image_size} px{size}",
        model.name + (f" {model.arguments}" if model.arguments else ""),
        f"{run.epochs} epochs{steps}, batch {run.batch_size}, {run.precision}",
        f"{optim.name} lr {optim.lr:g}, decay {optim.weight_decay:g}, warm-up {optim.warmup_epochs}, "
        f"floor {optim.min_lr:g}",
        f"{mix} ({mix.pairing} pairing)",
        str(loss),
    ]
    if optim.clip_grad:
        parts.append(f"clip {optim.clip_grad:g}")
    if optim.ema_decay:
        parts.append(f"EMA {optim.ema_decay:g} {'reported' if optim.ema_reported else 'tracked'}")
    return "; ".join(parts)


def progress_of(items: Sequence[Item]) -> str:
    """The states of some trainings, counted: "8 finished" or "3 finished, 5 not started"."""
    return ", ".join(f"{number} {name}" for name, number in Counter(map(state, items)).items())


def listing(scale: Scale, tables: Sequence[Table]) -> str:
    """All tables with their sizes."""
    lines = [(t.id, t.paper_table or "ours", t.title, str(len(t.rows)), str(len(t.runs))) for t in tables]
    return f"scale {scale.name}: {scale.text}\n\n" + grid(("table", "paper", "title", "rows", "runs"), lines)


def showing(scale: Scale, table: Table, seeds: int | None) -> str:
    """One table: rows, the paper's cells, run keys, evaluations and their states, recipes, and claims."""
    labels = [column.title for column in table.label_columns]
    header = ["row", *labels, "column", "paper", "run", "measure", "seeds", "note"]
    lines = [_shown(scale, table, row, column, seeds) for row in table.rows for column in table.value_columns]
    first = {(run.model.role, run.data.name): run for run in reversed(table.runs.values())}
    unit = "GPU-hours" if scale.gpus else "CPU-hours"
    recipes = dict.fromkeys(
        f"  {run.model.role}: {recipe(run)}; about {scale.hours(run):.2g} {unit} a seed"
        for run in reversed(first.values())
    )
    made = {one.key: f"  {one.key}: {json.dumps(one.arguments)}" for one in table.evaluations.values()}
    head = [
        f"{table.id}: {table.paper_table or 'ours'}, {table.title}",
        f"scale {scale.name}: {table.setting or scale.text}",
    ]
    evaluated = ["", "evaluations:", *made.values()] if made else []
    return "\n".join([*head, "", grid(header, lines), "", "base recipe of each role:", *recipes, *evaluated])


def _shown(scale: Scale, table: Table, row: Row, column: Column, seeds: int | None) -> list[str]:
    run, cell = row.runs.get(column.id), (row.id, column.id)
    paper = table.paper.get(cell)
    missing = f"not at this scale: {row.unavailable}" if row.unavailable else row.gains.get(column.id, "")
    evaluation = table.evaluation(cell) if run else None  # the accuracy of training goes without saying
    return [
        row.id,
        *(row.labels[label.id] for label in table.label_columns),
        column.title,
        "" if paper is None else formatting.number(paper, table.digits(cell)),
        run.key if run else "",
        "" if evaluation is None else f"{evaluation.key} {table.metric_of(cell)}",
        progress_of(items_of(scale, [run], seeds)) if run else missing,
        row.note,
    ]


def statuses(scale: Scale, tables: Sequence[Table], seeds: int | None) -> str:
    """How far each table is."""
    lines = []
    for table in tables:
        items = items_of(scale, table.runs.values(), seeds)
        done = sum(state(item) == FINISHED for item in items)
        asked = evaluation_items(scale, table, seeds=seeds)
        made = sum(state(item) == FINISHED for item in asked)
        evaluated = f"{made} of {len(asked)}" if asked else ""
        lines.append((table.id, f"{done} of {len(items)}", evaluated, progress_of(items)))
    return f"scale {scale.name}\n\n" + grid(("table", "finished", "evaluated", "seeds"), lines)


def costs(scale: Scale, seeds: int | None = None) -> dict[str, tuple[int, int, float, int, float]]:
    """Table -> unique runs, their trainings, estimated hours, how many are finished, and the seconds these took.

    A run counts for the first table that shows it: later ones have it for nothing.
    """
    found, owner = {}, owners(scale)
    for table in tables_of(scale):
        runs = [run for key, run in table.runs.items() if owner[key] == table.id]
        items = items_of(scale, runs, seeds)
        measured = [flat(item.read() or {}).get("seconds", 0.0) for item in items if state(item) in (FINISHED, OLDER)]
        hours = sum(scale.hours(item.run) for item in items)
        found[table.id] = len(runs), len(items), hours, len(measured), sum(measured)
    return found


def cost_table(scale: Scale, seeds: int | None = None) -> str:
    """What a scale's tables cost: unique runs, GPU-hours and price, or the CPU-seconds that were measured."""
    found = costs(scale, seeds)
    total = [sum(numbers) for numbers in zip(*found.values(), strict=True)]
    lines = [
        (
            name,
            f"{runs}",
            f"{trainings}",
            f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}",
            f"{hours * scale.dollars_per_gpu_hour:.0f}" if scale.gpus else "-",
            f"{finished} of {trainings}",
            f"{seconds:.0f}",
        )
        for name, (runs, trainings, hours, finished, seconds) in [*found.items(), ("all", total)]
    ]
    price = "no GPU is needed, hence no price"
    if scale.gpus:
        price = f"{scale.dollars_per_gpu_hour:.2f} dollars per GPU-hour, a round figure"
        price += f": see experiments/scales/{scale.name}.py"
    hour = f"{'GPU' if scale.gpus else 'CPU'}-hours (estimate)"
    header = ("table", "runs", "trainings", hour, "dollars", "finished", "seconds (measured)")
    return f"scale {scale.name}: {scale.text}\n\n{grid(header, lines)}\n\n{price}"


def results_table(record: dict[str, Any]) -> str:
    """The record of a table: the paper's cells beside ours, differences and verdicts."""
    titles = {column["id"]: column["title"] for column in record["value_columns"]}
    lines = [
        [
            *(row["labels"][column["id"]] for column in record["label_columns"]),
            titles[column],
            "" if cell["paper"] is None else formatting.paper(cell),
            formatting.measured(cell) + (" older code" if cell["older_code"] else ""),
            formatting.difference(cell),
            row["note"],
        ]
        for row in record["rows"]
        for column, cell in row["cells"].items()
    ]
    header = [column["title"] for column in record["label_columns"]]
    text = grid([*header, "column", "paper", "ours: mean ± std (n)", "difference [95 %]", "note"], lines)
    verdicts = [
        f"  {claim['text']}: {claim['explanation']}"
        if record["exercises"]
        else f"  {claim['verdict'] or 'no verdict'}: {claim['text']} ({claim['explanation']})"
        for claim in record["claims"]
    ]
    name = record["paper_table"] or "Ours"
    head = f"{name}: {record['title']}, {record['metric']}\nscale {record['scale']}: {record['setting']}"
    return "\n".join([head, "", text, "", record["exercises"] or "claims, each by itself:", *verdicts])
