"""Trains a protocol of blocks: seed k of all runs of a table, on one kind of processor, before seed k + 1.

A block is whole once results/ and measured/ hold every training and evaluation of it, all trainings of one kind of
processor, so that any stop leaves whole blocks. What another kind of processor began of a block is trained again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.make import FAILURE, train
from experiments.pool import Interrupted, discard, usable_cores
from experiments.results import Runs, collect, flat, read_runs
from experiments.runs import EvaluationItem, Item, evaluation_items, is_open, items_of_table
from experiments.scale import Scale
from experiments.table import Table
from experiments.terminal import results_table
from training.data.sets import load
from training.process import hardware
from training.run_directory import read_json


@dataclass(frozen=True)
class Block:
    """Seed `seed` of every run of a table, and of the evaluations that it shows."""

    table: Table
    seed: int
    items: tuple[Item, ...]
    asked: tuple[EvaluationItem, ...]

    def is_whole(self, recorded: Runs) -> bool:
        """Whether all of it is recorded, of one kind of processor."""
        found: dict[str, dict[str, Any]] = {
            key: recorded[key]["seeds"].get(str(self.seed), {}) if key in recorded else {} for key in self.table.runs
        }
        kinds = {flat(outcome).get("hardware", {}).get("cpu") for outcome in found.values()}
        made = all(one.evaluation.key in found[one.item.run.key].get("evaluations", {}) for one in self.asked)
        return made and len(kinds) == 1 and None not in kinds


def blocks_of(scale: Scale, tables: Sequence[Table], seeds: int | None = None) -> list[Block]:
    """All blocks in the order of training: question by question, seed by seed."""
    found = []
    for table in tables:
        items, asked = items_of_table(scale, table, seeds=seeds), evaluation_items(scale, table, seeds=seeds)
        for seed in sorted({item.seed for item in items}):
            own = tuple(item for item in items if item.seed == seed)
            found.append(Block(table, seed, own, tuple(one for one in asked if one.item.seed == seed)))
    return found


def run_blocks(scale: Scale, tables: Sequence[Table], seeds: int | None, dry_run: bool) -> int:
    """Train, evaluate and collect block by block what is not recorded yet; returns the exit code."""
    recorded = read_runs(Path(), scale.name)
    left = [block for block in blocks_of(scale, tables, seeds) if not block.is_whole(recorded)]
    _say(scale, tables, left, seeds)
    if dry_run:
        return 0
    if left:
        load(left[0].items[0].run.data)  # once, before the processes: it may be fetched, or say what is missing
    while left:
        block = left[0]
        for item in block.items:  # whatever was last at work on another kind of processor, finished or not
            path = item.directory / "environment.json"
            if path.exists() and read_json(path).get("hardware", {}).get("cpu") != hardware("cpu")["cpu"]:
                discard(item.directory)
        missing = [item for item in block.items if is_open(scale, item)]
        unmade = [one for one in block.asked if one.item in missing or is_open(scale, one)]
        try:
            if (missing or unmade) and train(scale, missing, unmade):  # else it is only to be collected
                return FAILURE
        except Interrupted as stop:
            return stop.code
        list(collect(scale, [block.table], seeds))
        if not block.is_whole(read_runs(Path(), scale.name)):
            raise ValueError(f"{block.table.id} seed {block.seed} is trained and not recorded whole: see measured/")
        left = left[1:]
        _say(scale, tables, left, seeds)
    for record in list(collect(scale, tables, seeds)):
        print(results_table(record), end="\n\n")
    return 0


def _say(scale: Scale, tables: Sequence[Table], left: Sequence[Block], seeds: int | None) -> None:
    """Of each question how many blocks are done and left, and the hours that these take here."""
    processes = scale.processes or usable_cores()
    for table in tables:
        own = [block for block in left if block.table.id == table.id]
        every = len(blocks_of(scale, [table], seeds))
        hours = sum(scale.hours(item.run) for block in own for item in block.items) / processes
        print(
            f"{table.id}: {every - len(own)} of {every} blocks done, {len(own)} left, about {hours:.1f} h", flush=True
        )
