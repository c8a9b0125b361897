"""Plain text for a terminal: tables, recipes, states and costs. Reads records and run directories, trains nothing."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from experiments import evaluations
from experiments.cost import Cost
from experiments.runs import FINISHED, Item, items_of, state
from experiments.scale import Scale
from experiments.table import Column, Reference, Row, Table
from training.config import Run


def grid(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart."""
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
    padded = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in (header, *lines)
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join(line.rstrip() for line in (padded[0], rule, *padded[1:]))


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
    counts = Counter(state(item) for item in items)
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def listing(scale: Scale, tables: Sequence[Table]) -> str:
    """All tables with their sizes."""
    lines = [
        (table.id, table.paper_table or "ours", table.title, str(len(table.rows)), str(len(table.runs)))
        for table in tables
    ]
    return f"scale {scale.name}: {scale.text}\n\n" + grid(("table", "paper", "title", "rows", "runs"), lines)


def showing(scale: Scale, table: Table, seeds: int | None) -> str:
    """One table: rows, the paper's cells, run keys, evaluations and their states."""
    labels = [column.title for column in table.label_columns]
    header = ["row", *labels, "column", "paper", "run", "measure", "seeds", "note"]
    lines = [_shown(scale, table, row, column, seeds) for row in table.rows for column in table.value_columns]
    protocols = {evaluation.key: evaluation for evaluation in table.evaluations.values()}
    recipes = dict.fromkeys(f"{run.model.role}: {recipe(run)}" for run in _base_runs(table))
    return "\n".join(
        [
            f"{table.id}: {table.paper_table or 'ours'}, {table.title}",
            f"scale {scale.name}: {table.setting or scale.text}",
            "",
            grid(header, lines),
            "",
            "base recipe of each role:",
            *(f"  {text}" for text in recipes),
            *(["", "evaluations:"] if protocols else []),
            *(f"  {key}: {json.dumps(evaluation.arguments)}" for key, evaluation in protocols.items()),
        ]
    )


def _shown(scale: Scale, table: Table, row: Row, column: Column, seeds: int | None) -> list[str]:
    run, cell = row.runs.get(column.id), (row.id, column.id)
    paper = table.paper.get(cell)
    return [
        row.id,
        *(row.labels[label.id] for label in table.label_columns),
        column.title,
        "" if paper is None else f"{paper:.1f}",
        run.key if run else "",
        _measure(table, cell),
        progress_of(items_of(scale, [run], seeds)) if run else f"not at this scale: {row.unavailable}",
        row.note,
    ]


def _measure(table: Table, cell: Reference) -> str:
    """The evaluation and metric of a cell; the accuracy of training goes without saying."""
    evaluation = table.evaluation(cell) if cell in table.cells else None
    return "" if evaluation is None else f"{evaluation.key} {table.metric_of(cell)}"


def _base_runs(table: Table) -> list[Run]:
    """For each role and data set of the table the first run on it."""
    found: dict[tuple[str, str], Run] = {}
    for run in table.runs.values():
        found.setdefault((run.model.role, run.data.name), run)
    return list(found.values())


def statuses(scale: Scale, tables: Sequence[Table], seeds: int | None) -> str:
    """How far each table is."""
    lines = []
    for table in tables:
        items = items_of(scale, table.runs.values(), seeds)
        done = sum(state(item) == FINISHED for item in items)
        measured = evaluations.evaluation_items(scale, table, seeds=seeds)
        made = sum(evaluations.state(item) == FINISHED for item in measured)
        evaluated = f"{made} of {len(measured)}" if measured else ""
        lines.append((table.id, f"{done} of {len(items)}", evaluated, progress_of(items)))
    return f"scale {scale.name}\n\n" + grid(("table", "finished", "evaluated", "seeds"), lines)


def cost_table(scale: Scale, costs: Sequence[Cost]) -> str:
    """Unique runs, hours and price of every table; a run counts for the first table that shows it."""
    unit = "GPU-hours" if scale.gpus else "CPU-hours"
    lines = [_cost_line(scale, cost) for cost in costs]
    total = Cost(
        "all",
        *(sum(getattr(cost, name) for cost in costs) for name in ("runs", "trainings", "hours", "finished", "seconds")),
    )
    header = ["table", "runs", "trainings", f"{unit} (estimate)", "dollars", "finished", "seconds (measured)"]
    text = grid(header, [*lines, _cost_line(scale, total)])
    if not scale.gpus:
        return f"scale {scale.name}: {scale.text}\n\n{text}\n\nno GPU is needed, hence no price"
    price = (
        f"{scale.dollars_per_gpu_hour:.2f} dollars per GPU-hour, a round figure: see experiments/scales/{scale.name}.py"
    )
    return f"scale {scale.name}: {scale.text}\n\n{text}\n\n{price}"


def _cost_line(scale: Scale, cost: Cost) -> list[str]:
    dollars = f"{cost.hours * scale.dollars_per_gpu_hour:.0f}" if scale.gpus else "-"
    hours = f"{cost.hours:.1f}" if cost.hours >= 10 else f"{cost.hours:.2f}"
    return [
        cost.table,
        str(cost.runs),
        str(cost.trainings),
        hours,
        dollars,
        f"{cost.finished} of {cost.trainings}",
        f"{cost.seconds:.0f}",
    ]


def results_table(values: dict[str, Any]) -> str:
    """A collected table: the paper's cells beside ours, differences and verdicts."""
    titles = {column["id"]: column["title"] for column in values["value_columns"]}
    lines = []
    for row in values["rows"]:
        labels = [row["labels"][column["id"]] for column in values["label_columns"]]
        for column, cell in row["cells"].items():
            lines.append([*labels, titles[column], _number(cell["paper"]), _ours(cell), _difference(cell), row["note"]])
    header = [column["title"] for column in values["label_columns"]]
    text = grid([*header, "column", "paper", "ours: mean ± std (n)", "difference [95 %]", "note"], lines)
    verdicts = [f"  {claim['verdict']}: {claim['text']} ({claim['explanation']})" for claim in values["claims"]]
    name = values["paper_table"] or "Ours"
    head = f"{name}: {values['title']}, {values['metric']}\nscale {values['scale']}: {values['setting']}"
    return "\n".join([head, "", text, "", "claims, each by itself:", *verdicts])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _ours(cell: dict[str, Any]) -> str:
    if cell["status"] != "done":
        return str(cell["status"])
    spread = "" if cell["std"] is None else f" ± {cell['std']:.2f}"
    return f"{cell['mean']:.2f}{spread} ({cell['n']}){' older code' if cell['older_code'] else ''}"


def _difference(cell: dict[str, Any]) -> str:
    difference = cell["difference"]
    if not difference:
        return ""
    if difference["low"] is None:
        return f"{difference['mean']:+.2f}"
    return f"{difference['mean']:+.2f} [{difference['low']:+.2f}, {difference['high']:+.2f}]"
