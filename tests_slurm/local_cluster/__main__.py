"""`python -m tests_slurm.local_cluster start | stop | status | env`: a real one-node SLURM from the command line."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from experiments.console import fail, run
from tests_slurm.local_cluster.cluster import LocalCluster
from tests_slurm.local_cluster.daemons import ClusterError

FAILURE = 1


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m tests_slurm.local_cluster",
        description="A real SLURM with one node on this machine, for tests and first tries.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("start", "start the cluster and wait until it takes jobs; nothing happens if it runs"),
        ("stop", "end its jobs and daemons and remove its folder"),
        ("status", "list its daemons and the state of its node; exit code 1 unless all is well"),
        ("env", 'print what the shell needs: eval "$(python -m tests_slurm.local_cluster env)"'),
    ):
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument("--directory", type=Path, metavar="D", help="its folder; default: one of yours under /tmp")
        if name == "start":
            sub.add_argument("--no-accounting", action="store_true", help="no database, hence no sacct")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    cluster = LocalCluster(options.directory, accounting=not getattr(options, "no_accounting", False))
    try:
        return COMMANDS[options.command](cluster)
    except ClusterError as error:
        return fail(error, FAILURE)


def _start(cluster: LocalCluster) -> int:
    new = cluster.start()
    print(f"the cluster in {cluster.layout.directory} {'is up' if new else 'was running already'}; its commands need")
    return _environment(cluster)


def _stop(cluster: LocalCluster) -> int:
    there = cluster.stop()
    print(f"{'stopped' if there else 'no cluster in'} {cluster.layout.directory}")
    return 0


def _status(cluster: LocalCluster) -> int:
    processes = cluster.processes()
    if not processes:
        print(f"no cluster in {cluster.layout.directory}: python -m tests_slurm.local_cluster start")
        return FAILURE
    for name, pid in processes.items():
        print(f"{name:<10} {f'running as process {pid}' if pid else 'dead'}")
    node = cluster.node()
    print(f"{'node':<10} {node or 'unknown: slurmctld does not answer'}")
    return 0 if all(processes.values()) and node in ("idle", "mixed", "allocated") else FAILURE


def _environment(cluster: LocalCluster) -> int:
    for name, value in cluster.environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


COMMANDS = {"start": _start, "stop": _stop, "status": _status, "env": _environment}

if __name__ == "__main__":
    run(main)
