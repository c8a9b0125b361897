"""`python -m slurm submit | status | cancel`: the tables of the papers on a SLURM cluster."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.console import fail, run

if TYPE_CHECKING:
    from experiments.params import Params
    from experiments.runs import Item
    from experiments.scale import Scale

USAGE, FAILURE = 2, 1


def parser() -> argparse.ArgumentParser:
    """The command line. Names of scales, tables, rows, runs and clusters are checked later, with near matches."""
    top = argparse.ArgumentParser(
        prog="python -m slurm",
        description="The tables of the papers on a SLURM cluster: submit what is missing, watch it, cancel it.",
        epilog="Scale and seeds default to params.yaml, the cluster to LUMIX_CLUSTER, else a100. See docs/slurm.md.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--scale", metavar="S", help="mini (a laptop), lab (one GPU) or paper (a cluster)")
    common.add_argument("--seeds", metavar="N", type=int, help="seeds 0 to N-1 for every run")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common])

    submit = command("submit", "submit the missing runs of tables as job arrays; what has a job already is left alone")
    submit.add_argument("tables", metavar="TABLE", nargs="+", help="a table, or `all`")
    submit.add_argument("--only", metavar="ROW", action="append", help="this row only; may be repeated")
    submit.add_argument("--cluster", metavar="NAME", help="a file of slurm/clusters, or the path of your own .toml")
    submit.add_argument("--dry-run", action="store_true", help="print the plan, write and submit nothing")
    submit.add_argument("--resume", action="store_true", help="submit failed, cancelled and lost runs again")
    status = command("status", "say of every run whether it is queued, running, done, failed or lost")
    status.add_argument("table", metavar="TABLE", nargs="?", help="a table; without one, every run that has a job")
    cancel = command("cancel", "cancel the jobs of a table or a run; what they have trained stays")
    cancel.add_argument("name", metavar="TABLE|RUN", help="a table, a run's key, or KEY/seed0")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    from experiments.params import check_seeds, read_params
    from experiments.scale import get_scale
    from training.run_directory import RunError

    try:
        params = read_params()
        scale = get_scale(options.scale or params.scale)
        seeds = params.seeds if options.seeds is None else check_seeds(options.seeds)
        _dispatch(options, params, scale, seeds)
    except ValueError as error:
        return fail(error, USAGE)
    except (RunError, OSError) as error:
        return fail(error, FAILURE)
    return 0


def _dispatch(options: argparse.Namespace, params: "Params", scale: "Scale", seeds: int | None) -> None:
    if options.command == "submit":
        from slurm.cluster import load_cluster
        from slurm.submit import submit

        cluster = load_cluster(options.cluster)
        names = list(filter(scale.has, params.tables)) if options.tables == ["all"] else options.tables
        submit(scale, _items(scale, names, options.only, seeds), cluster, options.dry_run, options.resume)
    elif options.command == "status":
        from slurm.status import print_status

        names = [options.table] if options.table else list(filter(scale.has, params.tables))
        print_status(scale, _items(scale, names, None, seeds), options.table)
    else:
        from slurm.status import cancel, items_named

        jobs = cancel(items_named(scale, options.name, seeds))
        print(f"cancelled: job {', '.join(jobs)}" if jobs else f"{options.name} has no job that is queued or running")


def _items(scale: "Scale", names: Sequence[str], only: list[str] | None, seeds: int | None) -> "list[Item]":
    """The trainings of some tables, or of some of their rows."""
    from experiments.registry import get_table
    from experiments.runs import items_of_table
    from experiments.suggest import choose

    tables = [get_table(name, scale) for name in names]
    rows = {row.id for table in tables for row in table.rows}
    kind = f"row of {tables[0].id}" if len(tables) == 1 else "row"
    chosen = None if only is None else [choose(kind, row, rows) for row in only]
    return [item for table in tables for item in items_of_table(scale, table, chosen, seeds)]


if __name__ == "__main__":
    run(main)
