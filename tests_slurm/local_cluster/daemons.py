"""Daemons of the local cluster: how each is started, when it is ready, and how processes are found and ended by id."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests_slurm.local_cluster.configuration import Layout, Settings
from tests_slurm.local_cluster.packages import program, search_path

START_SECONDS = 60.0  # slow machines; a start takes about a second
CLIENT_SECONDS = 20.0  # a client without its daemon would wait for minutes


class ClusterError(RuntimeError):
    """The cluster cannot be started or stopped; the message is one sentence with the remedy."""


@dataclass(frozen=True)
class Daemon:
    """A command that stays in the foreground, and a question that is answered with yes once it is ready."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool]


def daemons(layout: Layout, settings: Settings) -> list[Daemon]:
    """All daemons in the order of their start."""
    conf = str(layout.conf)
    start = [Daemon("munged", _munged(layout), lambda: ask(layout, "munge", "-n", "-S", str(layout.munge)) is not None)]
    if settings.accounting:
        socket = f"--socket={layout.database}"
        start += [
            Daemon(
                "mariadbd",
                _mariadbd(layout, settings),
                lambda: ask(layout, "mariadb-admin", "--no-defaults", socket, "ping") is not None,
            ),
            Daemon("slurmdbd", ("slurmdbd", "-D"), lambda: bool(ask(layout, "sacctmgr", "-n", "show", "tres"))),
        ]
    return [
        *start,
        Daemon("slurmctld", ("slurmctld", "-D", "-f", conf), lambda: ask(layout, "scontrol", "ping") is not None),
        Daemon(
            "slurmd",
            ("slurmd", "-D", "-f", conf),
            lambda: (ask(layout, "sinfo", "-h", "-o", "%T") or "").split()[:1] in (["idle"], ["mixed"], ["allocated"]),
        ),
    ]


def _munged(layout: Layout) -> tuple[str, ...]:
    files = {
        "key-file": layout.directory / "munge.key",
        "socket": layout.munge,
        "pid-file": layout.pid("munged"),
        "log-file": layout.log("munged"),
        "seed-file": layout.directory / "state" / "munge.seed",
    }
    # --force: temporary folders are not as locked up as munge likes; the key itself is for this cluster only.
    return (
        "munged",
        "--foreground",
        "--force",
        "--num-threads=10",
        *(f"--{name}={path}" for name, path in files.items()),
    )


def _mariadbd(layout: Layout, settings: Settings) -> tuple[str, ...]:
    """A throw-away database behind a private socket, hence no passwords, no network, no care for a power cut."""
    return (
        "mariadbd",
        "--no-defaults",
        f"--user={settings.user}",
        f"--datadir={layout.directory / 'mysql'}",
        f"--socket={layout.database}",
        f"--pid-file={layout.pid('mariadbd')}",
        "--skip-networking",
        "--skip-grant-tables",
        "--innodb-buffer-pool-size=32M",
        "--innodb-log-file-size=16M",
        "--innodb-flush-log-at-trx-commit=0",
        "--performance-schema=OFF",
    )


def create_database(layout: Layout, settings: Settings) -> None:
    """Make the empty database folder."""
    datadir = layout.directory / "mysql"
    output = layout.log("mariadb-install-db")
    with output.open("w") as log:
        code = subprocess.run(
            [
                program("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={datadir}",
                f"--user={settings.user}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            stdout=log,
            stderr=log,
            timeout=3 * START_SECONDS,
        ).returncode
    if code:
        raise ClusterError(f"the accounting database cannot be made: {_last_line(output)}")


# ------------------------------------------------------------------------------------------------- starting


def environment(layout: Layout) -> dict[str, str]:
    """What a daemon sees: nothing of the caller but the way to its programs."""
    return {
        "PATH": search_path(),
        "HOME": str(layout.directory),
        "LANG": "C.UTF-8",
        "SLURM_CONF": str(layout.conf),
        "MYSQL_UNIX_PORT": str(layout.database),
    }


def ask(layout: Layout, *command: str) -> str | None:
    """What a client prints; None where it fails or finds no daemon in time."""
    try:
        answer = subprocess.run(
            [program(command[0]), *command[1:]],
            env=environment(layout),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLIENT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def launch(layout: Layout, daemon: Daemon) -> subprocess.Popen[bytes]:
    """Start a daemon in a session of its own; it outlives this process."""
    output = layout.directory / "log" / f"{daemon.name}.out"
    with output.open("ab") as log:
        return subprocess.Popen(
            [program(daemon.command[0]), *daemon.command[1:]],
            env=environment(layout),
            cwd=layout.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o022,
        )


def await_ready(layout: Layout, daemon: Daemon, process: subprocess.Popen[bytes]) -> None:
    """Return once the daemon answers.

    Raises:
        ClusterError: if it ends or stays dumb, with the last line of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    while not daemon.ready():
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            what = f"ended with code {ended}" if ended is not None else f"gave no answer in {START_SECONDS:.0f} s"
            files = (layout.log(daemon.name), layout.directory / "log" / f"{daemon.name}.out")
            said = " / ".join(line for line in map(_last_line, files) if line)
            raise ClusterError(f"{daemon.name} {what}: {said or 'it wrote no log'}")
        time.sleep(0.1)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    # slurmd and slurmctld write errors first and end with harmless lines.
    wanted = [line for line in lines if "fatal" in line or "rror" in line] or lines
    return next((line.strip() for line in reversed(wanted) if line.strip()), "")


# ------------------------------------------------------------------------------------------------- processes


def birth(pid: int) -> str | None:
    """When a process started, in ticks since boot; None if there is none or it only waits for its parent to notice."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def end(processes: Iterable[tuple[int, str]], seconds: float) -> None:
    """SIGTERM, then after `seconds` SIGKILL, to those of the (pid, birth) that are still the same processes."""
    left = _living(processes)
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        for pid, _ in left:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + patience
        while (left := _living(left)) and time.monotonic() < deadline:
            _reap(left)
            time.sleep(0.05)
        if not left:
            return
    raise ClusterError(f"process {left[0][0]} cannot be ended: end it by hand and stop the cluster again")


def _living(processes: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(pid, born) for pid, born in processes if birth(pid) == born]


def _reap(processes: Iterable[tuple[int, str]]) -> None:
    """Daemons started by this very process are its children."""
    for pid, _ in processes:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


def with_text_in_environment(text: str) -> list[tuple[int, str]]:
    """Processes of this user whose environment holds `text`: what jobs left running after their daemons are gone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                held = text.encode() in (entry / "environ").read_bytes()
            except OSError:
                continue
            if held and (born := birth(int(entry.name))):
                found.append((int(entry.name), born))
    return found
