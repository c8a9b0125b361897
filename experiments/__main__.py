"""`python -m experiments list | show | run | status | cost | collect | verify`: tables from the command line."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.console import fail, run

USAGE, FAILURE = 2, 1


def parser() -> argparse.ArgumentParser:
    """The command line. The choices of scale and table are checked later, with near matches."""
    top = argparse.ArgumentParser(
        prog="python -m experiments",
        description="The tables of the papers: what they hold, how far they are, and the command that makes them.",
        epilog="Scale, seeds, launcher and tables default to params.yaml.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--scale", metavar="S", help="mini (a laptop), small (hours of it), lab (one GPU) or paper (a cluster)"
    )
    common.add_argument("--seeds", metavar="N", type=int, help="seeds 0 to N-1 for every run")

    def command(name: str, text: str, tables: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common])
        if tables:
            nargs = tables if tables in "*?" else 1
            sub.add_argument("tables", metavar="TABLE", nargs=nargs, help="a table, as `list` names it")
        return sub

    command("list", "list the tables")
    command("show", "show rows, recipe, the paper's cells, run keys and states of a table", tables="1")
    made = command(
        "run", "train and evaluate what tables miss, collect and print them; repeat it after an interruption", "*"
    )
    made.add_argument("--only", metavar="ROW", action="append", help="train this row only; may be repeated")
    made.add_argument("--dry-run", action="store_true", help="print what would be trained, train nothing")
    command("status", "say how many runs of each table are finished", tables="?")
    command("cost", "print unique runs, estimated hours and price, and the seconds measured so far")
    command("collect", "write the files of tables in results/ and measured/ from the runs that are finished", "*")
    check = command("verify", "say whether results/<scale> is that of the last commit, and what differs")
    check.add_argument("--against", metavar="DIR", type=Path, help="compare with the project in this folder instead")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    from experiments import terminal  # late, as all below: --help must not wait for torch
    from experiments.blocks import run_blocks
    from experiments.make import make
    from experiments.params import check_seeds, read_params
    from experiments.registry import get_table, tables_of
    from experiments.results import collect
    from experiments.scale import get_scale
    from experiments.suggest import choose
    from training.run_directory import RunError

    try:
        params = read_params()
        scale = get_scale(params.scale if options.scale is None else options.scale)
        seeds = params.seeds if options.seeds is None else check_seeds(options.seeds)
        names = getattr(options, "tables", None)
        if not names and options.command in ("run", "collect"):
            names = [name for name in params.tables if scale.has(name)]
        tables = [get_table(name, scale) for name in ([names] if isinstance(names, str) else names or ())]
        rows = getattr(options, "only", None)
        if rows is not None and len(tables) != 1:
            raise ValueError("--only goes with one table")
        rows = rows and [choose(f"row of {tables[0].id}", row, [r.id for r in tables[0].rows]) for row in rows]
    except ValueError as error:
        return fail(error, USAGE)
    try:
        if options.command == "run" and scale.blocks:
            if rows is not None:
                raise ValueError(f"scale {scale.name} trains whole blocks: leave --only out")
            return run_blocks(scale, tables, seeds, options.dry_run)
        if options.command == "run":
            return make(scale, tables, rows, seeds, params.launcher, options.dry_run)
        if options.command == "list":
            print(terminal.listing(scale, tables_of(scale)))
        elif options.command == "show":
            print(terminal.showing(scale, tables[0], seeds))
        elif options.command == "status":
            print(terminal.statuses(scale, tables or tables_of(scale), seeds))
        elif options.command == "cost":
            print(terminal.cost_table(scale, seeds))
        elif options.command == "collect":
            for record in list(collect(scale, tables, seeds)):
                print(terminal.results_table(record), end="\n\n")
        else:
            from experiments.verify import verify  # scipy

            text, well = verify(scale, options.against)
            print(text)
            return 0 if well else FAILURE
    except (RunError, ValueError, OSError) as error:
        return fail(error, FAILURE)
    return 0


if __name__ == "__main__":
    run(main)
