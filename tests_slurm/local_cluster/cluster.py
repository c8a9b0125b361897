"""The one-node cluster as a thing that is started, asked and stopped; its state lies in one folder and nowhere else."""

import contextlib
import json
import os
import pwd
import random
import shutil
import socket
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests_slurm.local_cluster import daemons as service
from tests_slurm.local_cluster.configuration import NAME, SOCKET_LIMIT, Layout, Settings, write_files
from tests_slurm.local_cluster.daemons import ClusterError, Daemon
from tests_slurm.local_cluster.packages import INSTALL, missing

# Below the ports that Linux gives to outgoing connections: a daemon that is restarted finds its port free.
PORTS = range(20_000, 32_000)
JOBS_END_SECONDS = 15.0
DAEMON_END_SECONDS = 15.0


def default_directory() -> Path:
    """Where the cluster of this user lies unless another folder is named."""
    return Path(tempfile.gettempdir()) / f"lumix-slurm-{os.getuid()}"


class LocalCluster:
    """One SLURM node with two CPUs in `directory`, which the cluster makes and removes; a context manager.

    With `accounting`, sacct works: MariaDB and slurmdbd run too.
    """

    def __init__(self, directory: Path | None = None, accounting: bool = True) -> None:
        self.layout = Layout((directory or default_directory()).absolute())
        self.accounting = accounting

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """What the commands of SLURM need in their environment to find this cluster."""
        return {"SLURM_CONF": str(self.layout.conf)}

    # --------------------------------------------------------------------------------------------- start

    def start(self) -> bool:
        """Start every daemon and wait for an idle node; False if all of them were running already.

        Raises:
            ClusterError: one sentence with the remedy, after everything that was started has been stopped.
        """
        if absent := missing(self.accounting):
            raise ClusterError(f"SLURM is not installed here ({', '.join(absent)} missing): {INSTALL}")
        if len(str(self.layout.munge)) > SOCKET_LIMIT:
            raise ClusterError(f"{self.layout.directory} is too long a path for a socket: choose a shorter one")
        if self._running():
            return False
        self._claim()
        try:
            settings = Settings(_host(), _user(), _free_ports(), self.accounting)
            self._write(settings=vars(settings) | {"ports": list(settings.ports)})
            write_files(self.layout, settings)
            if self.accounting:
                service.create_database(self.layout, settings)
            for daemon in service.daemons(self.layout, settings):
                self._start(daemon)
            self._write(starter=None)
        except BaseException:
            self.stop()
            raise
        return True

    def _running(self) -> bool:
        """Whether the whole cluster is up; what is left of a broken one is removed."""
        state = self._read()
        if not state:
            return False
        if all(self.processes().values()) and state["starter"] is None:
            if state["settings"]["accounting"] != self.accounting:
                raise ClusterError(
                    f"the cluster in {self.layout.directory} runs {'without' if self.accounting else 'with'} "
                    f"accounting: stop it first"
                )
            return True
        if state["starter"] and _alive(state["starter"]):
            raise ClusterError(
                f"process {state['starter'][0]} is starting the cluster in {self.layout.directory}: wait"
            )
        self.stop()
        return False

    def _claim(self) -> None:
        """Make the folder ours: of two that start at once only one can."""
        directory = self.layout.directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise ClusterError(f"{directory} is not empty and holds no cluster: choose another folder")
            with self.layout.state.open("x") as file:
                me = [os.getpid(), service.birth(os.getpid())]
                json.dump({"starter": me, "settings": None, "daemons": {}}, file)
        except FileExistsError as error:
            raise ClusterError(f"{directory} is being used by another start: wait for it") from error
        except OSError as error:
            raise ClusterError(f"{directory} cannot be made ({error.strerror}): choose another folder") from error

    def _start(self, daemon: Daemon) -> None:
        process = service.launch(self.layout, daemon)
        born = service.birth(process.pid)
        self._write(daemons=self._read()["daemons"] | {daemon.name: [process.pid, born]})
        service.await_ready(self.layout, daemon, process)
        process.returncode = 0  # it is meant to outlive this object: no warning about that
        if daemon.name == "slurmdbd":
            service.ask(self.layout, "sacctmgr", "-i", "add", "cluster", NAME)

    def start_daemon(self, name: str) -> None:
        """Start one daemon again, after `stop_daemon`."""
        values = self._read()["settings"]
        settings = Settings(**values | {"ports": tuple(values["ports"])})
        self._start(next(daemon for daemon in service.daemons(self.layout, settings) if daemon.name == name))

    # --------------------------------------------------------------------------------------------- stop

    def stop(self) -> bool:
        """End all jobs and daemons of this cluster and remove its folder; False if there was none."""
        if not self._read():
            return False
        if all(self.processes().values()):
            self._end_jobs()
        for name in reversed(list(self.processes())):
            self.stop_daemon(name)
        # A slurmstepd whose job had not ended survives slurmd, and so may what the job itself started.
        service.end(service.with_text_in_environment(f"SLURM_CONF={self.layout.conf}"), seconds=1.0)
        shutil.rmtree(self.layout.directory)
        return True

    def _end_jobs(self) -> None:
        service.ask(self.layout, "scancel", "--user", _user())
        deadline = time.monotonic() + JOBS_END_SECONDS
        while service.ask(self.layout, "squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.2)

    def stop_daemon(self, name: str) -> None:
        """End one daemon, so that its absence can be tested."""
        pid, born = self._read()["daemons"][name]
        service.end([(pid, born)], DAEMON_END_SECONDS)

    # --------------------------------------------------------------------------------------------- state

    def processes(self) -> dict[str, int | None]:
        """Daemon -> process id, None where it has died."""
        known = self._read().get("daemons", {})
        return {name: pid if _alive((pid, born)) else None for name, (pid, born) in known.items()}

    def node(self) -> str:
        """The node's state in SLURM's words; empty where slurmctld does not answer."""
        return (service.ask(self.layout, "sinfo", "-h", "-N", "-p", "debug", "-o", "%T") or "").strip()

    def _read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self.layout.state.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (PermissionError, json.JSONDecodeError) as error:
            raise ClusterError(f"{self.layout.state} cannot be read: choose another folder") from error
        return state

    def _write(self, **changes: Any) -> None:
        temporary = self.layout.state.with_suffix(".new")
        temporary.write_text(json.dumps(self._read() | changes))
        os.replace(temporary, self.layout.state)


def _alive(process: tuple[int, str]) -> bool:
    return service.birth(process[0]) == process[1]


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError as error:
        raise ClusterError(f"user {os.getuid()} has no name here, which SLURM needs: add it to /etc/passwd") from error


def _host() -> str:
    """The short host name, which must lead to an address for SLURM's own look-ups."""
    name = socket.gethostname().split(".")[0]
    try:
        socket.gethostbyname(name)
    except OSError as error:
        raise ClusterError(f"the host name {name} leads to no address: add it to /etc/hosts as 127.0.0.1") from error
    return name


def _free_ports() -> tuple[int, int, int]:
    found: list[int] = []
    for port in random.sample(PORTS, 200):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            found.append(port)
        if len(found) == 3:
            return found[0], found[1], found[2]
    raise ClusterError("no free TCP ports between 20000 and 32000: end what holds them")
