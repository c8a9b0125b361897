"""`python -m experiments list | show | run | status | cost | collect | verify`: tables from the command line.

Everything but training works without importing torch, and --help without importing anything of weight.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.console import fail, run

if TYPE_CHECKING:
    from experiments.evaluations import EvaluationItem
    from experiments.params import Params
    from experiments.runs import Item
    from experiments.scale import Scale
    from experiments.table import Table

USAGE, FAILURE, NOT_READY = 2, 1, 75  # 75 is EX_TEMPFAIL: come back later


def parser() -> argparse.ArgumentParser:
    """The command line. The choices of scale and table are checked later, with near matches."""
    top = argparse.ArgumentParser(
        prog="python -m experiments",
        description="The tables of the papers: what they hold, how far they are, and the command that makes them.",
        epilog="Scale, seeds and launcher default to params.yaml.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--scale", metavar="S", help="mini (a laptop), small (hours of it), lab (one GPU) or paper (a cluster)"
    )
    common.add_argument("--seeds", metavar="N", type=int, help="seeds 0 to N-1 for every run")

    def command(name: str, text: str, table: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common])
        if table is not None:
            sub.add_argument("table", metavar="TABLE", nargs=table or None, help="a table, as `list` names it")
        return sub

    command("list", "list the tables")
    command("show", "show rows, recipe, the paper's cells, run keys and states of a table", table="")
    run = command(
        "run", "train and evaluate what a table misses, collect and print it; repeat it after an interruption", table=""
    )
    run.add_argument("--only", metavar="ROW", action="append", help="train this row only; may be repeated")
    run.add_argument("--dry-run", action="store_true", help="print what would be trained, train nothing")
    command("status", "say how many runs of each table are finished", table="?")
    command("cost", "print unique runs, estimated hours and price, and the seconds measured so far")
    command("collect", "write the table's files in results/ and measured/ from the runs that are finished", table="")
    check = command("verify", "say whether results/<scale> is that of the last commit, and what differs")
    check.add_argument("--against", metavar="DIR", type=Path, help="compare with the project in this folder instead")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    from experiments.params import check_seeds, read_params
    from experiments.registry import get_table, tables_of
    from experiments.scale import get_scale
    from training.run_directory import RunError

    try:
        params = read_params()
        scale = get_scale(options.scale or params.scale)
        seeds = params.seeds if options.seeds is None else check_seeds(options.seeds)
        chosen = getattr(options, "table", None)
        tables = [get_table(chosen, scale)] if chosen else tables_of(scale)
        rows = _rows(tables[0], options.only) if options.command == "run" else None
    except ValueError as error:
        return fail(error, USAGE)
    try:
        return _dispatch(options, params, scale, tables, rows, seeds)
    except (RunError, ValueError, OSError) as error:
        return fail(error, FAILURE)


def _dispatch(
    options: argparse.Namespace,
    params: "Params",
    scale: "Scale",
    tables: "list[Table]",
    rows: list[str] | None,
    seeds: int | None,
) -> int:
    from experiments import terminal

    if options.command == "list":
        print(terminal.listing(scale, tables))
    elif options.command == "show":
        print(terminal.showing(scale, tables[0], seeds))
    elif options.command == "status":
        print(terminal.statuses(scale, tables, seeds))
    elif options.command == "cost":
        from experiments.cost import costs

        print(terminal.cost_table(scale, costs(scale, seeds)))
    elif options.command == "collect":
        _collect(scale, tables[0], seeds)
    elif options.command == "verify":
        from experiments.verify import verify

        text, well = verify(scale, options.against)
        print(text)
        return 0 if well else FAILURE
    else:
        return _run(scale, tables[0], rows, seeds, params.launcher, options.dry_run)
    return 0


def _run(
    scale: "Scale", table: "Table", rows: list[str] | None, seeds: int | None, launcher: str, dry_run: bool
) -> int:
    """Train, evaluate, collect and print; with the slurm launcher collect only, or say what is not finished."""
    from experiments import evaluations
    from experiments.pool import Interrupted
    from experiments.runs import is_open, items_of_table

    items = items_of_table(scale, table, rows, seeds)
    missing = [item for item in items if is_open(scale, item)]
    stale = {item.directory for item in missing}
    measured = evaluations.evaluation_items(scale, table, rows, seeds)
    unmeasured = [item for item in measured if item.needs & stale or evaluations.is_open(scale, item)]
    if dry_run:
        return _plan(scale, items, missing, measured, unmeasured, seeds)
    if launcher == "slurm" and (missing or unmeasured) and (code := _on_cluster(table, items, missing, unmeasured)):
        return code
    start = time.monotonic()
    try:
        failed = _work(scale, missing, unmeasured, seeds)
    except Interrupted as stop:
        return stop.code
    _collect(scale, table, seeds)
    seconds = time.monotonic() - start
    untrained = sum(item in missing for item in failed)
    made = len(unmeasured) - (len(failed) - untrained)
    text = f"{len(missing) - untrained} runs trained, {len(items) - len(missing)} found"
    if measured:
        text += f"; {made} evaluations made, {len(measured) - len(unmeasured)} found"
    print(f"\n{table.id}: {text}, {seconds:.1f} s")
    if failed:
        jobs = len(missing) + len(unmeasured)
        print(f"{len(failed)} of {jobs} {'jobs' if measured else 'runs'} failed, see the lines above", file=sys.stderr)
    return FAILURE if failed else 0


def _on_cluster(table: "Table", items: "list[Item]", missing: "list[Item]", unmeasured: "list[EvaluationItem]") -> int:
    """The exit code where the cluster has to work first; 0 within a job, which may evaluate finished runs itself."""
    if missing:
        from collections import Counter

        from experiments.runs import activity

        words = ", ".join(f"{count} {word}" for word, count in sorted(Counter(map(activity, missing)).items()))
        unfinished = f"{len(missing)} of {len(items)} runs of {table.id} are not finished ({words})"
        print(f"{unfinished}: python -m slurm submit {table.id} --cluster a100", file=sys.stderr)
        return NOT_READY
    if "SLURM_JOB_ID" not in os.environ:
        command = f"srun --gpus 1 python -m experiments run {table.id}"
        print(f"{len(unmeasured)} evaluations of {table.id} are not made: {command}", file=sys.stderr)
        return NOT_READY
    return 0


def _work(
    scale: "Scale", items: "list[Item]", evaluations: "list[EvaluationItem]", seeds: int | None
) -> "list[Item | EvaluationItem]":
    """Train and evaluate; returns what failed."""
    if not items and not evaluations:
        return []
    from experiments.train_table import train_items

    return [answer.item for answer in train_items(scale, items, evaluations, seeds)]


def _plan(
    scale: "Scale",
    items: "list[Item]",
    missing: "list[Item]",
    measured: "list[EvaluationItem]",
    unmeasured: "list[EvaluationItem]",
    seeds: int | None,
) -> int:
    """Print what would be done: which trainings together, which alone and why."""
    from experiments.runs import Group, grouped, state

    jobs = grouped(scale, missing, seeds)
    for job in jobs:
        if isinstance(job, Group):
            print(f"an ensemble of {len(job.items)} seeds of {job.run.key}:")
        for item in job.missing if isinstance(job, Group) else (job,):
            alone = "" if isinstance(job, Group) else f"  alone: {scale.alone(item.run) or 'it has one seed'}"
            print(f"{item.directory}  {state(item)}{alone}")
    for evaluation in unmeasured:
        print(f"{evaluation.cache / evaluation.evaluation.key}  of {evaluation.item.directory}")
    groups = sum(isinstance(job, Group) for job in jobs)
    how = f", as {groups} ensembles and {len(jobs) - groups} alone" if groups else ""
    print(f"{len(missing)} of {len(items)} runs would be trained{how}")
    if measured:
        print(f"{len(unmeasured)} of {len(measured)} evaluations would be made")
    return 0


def _collect(scale: "Scale", table: "Table", seeds: int | None) -> None:
    from experiments.collect import collect
    from experiments.records import write
    from experiments.terminal import results_table

    record = collect(scale, table, seeds)
    path = write(scale, record)
    print(results_table(record))
    print(f"\nwritten: {path}")


def _rows(table: "Table", only: list[str] | None) -> list[str] | None:
    """The rows asked for.

    Raises:
        ValueError: for an unknown row, with near matches.
    """
    from experiments.suggest import choose

    known = [row.id for row in table.rows]
    return None if only is None else [choose(f"row of {table.id}", row, known) for row in only]


if __name__ == "__main__":
    run(main)
