"""A real SLURM with one node on this machine, for tests and first tries: started and stopped without root or systemd.

    with LocalCluster(directory) as cluster:
        subprocess.run(["squeue"], env=os.environ | cluster.environment())

From a shell: `python -m tests_slurm.local_cluster start`, `eval "$(python -m tests_slurm.local_cluster env)"`, `stop`.
All of it lies in one folder. Standard library only, so that any user's Python 3.11 can run it. Every line of the
configuration was tried on Debian's SLURM 22.05; MariaDB and slurmdbd are there for sacct.
"""

import argparse
import contextlib
import json
import os
import pwd
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

INSTALL = (
    "apt-get install -y --no-install-recommends "
    "slurmctld slurmd slurm-client munge slurmdbd slurm-wlm-mysql-plugin mariadb-server rsync"
)
PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
PROGRAMS += ("rsync", "slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db", "mariadb-admin")
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # an ordinary user's PATH lacks them
PORTS = range(20_000, 32_000)  # below those that Linux gives to outgoing connections: free again after a restart
SOCKET_LIMIT = 107  # bytes of the path of a Unix socket
START_SECONDS = 60.0  # slow machines; a start takes about a second
CLIENT_SECONDS = 20.0  # a client without its daemon would wait for minutes
END_SECONDS = 15.0  # of jobs, and of each daemon

# A requeued job is held for cred_expire + 1 seconds: 121 by default, 6 here. Jobs in `high` take the node from those in
# `debug` and `a100`, which are requeued. It has two CPUs whatever the machine has, and two GPUs in name only.
SLURM_CONF = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=5
MaxArraySize=2000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[2]}
AccountingStoragePass={folder}/run/munge.socket
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory} Gres=gpu:a100:2 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=a100 Nodes={host} MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
SLURMDBD_CONF = """AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports[2]}
SlurmUser={user}
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=slurm_acct
"""


class ClusterError(RuntimeError):
    """The cluster cannot be started or stopped; the message is one sentence with the remedy."""


def search_path() -> str:
    """PATH with the folders of system daemons."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])


def program(name: str) -> str:
    """The full path of a program; its bare name where there is none."""
    return shutil.which(name, path=search_path()) or name


def missing() -> list[str]:
    """The programs that are not installed here, none if all are."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]
    plugin = "accounting_storage_mysql.so"
    return absent if any(Path("/usr/lib").glob(f"**/{plugin}")) else [*absent, plugin]


class LocalCluster:
    """One SLURM node with two CPUs in `directory`, which the cluster makes and removes; a context manager."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = (directory or Path(tempfile.gettempdir()) / f"lumix-slurm-{os.getuid()}").absolute()
        self.state = self.directory / "cluster.json"  # daemon -> [process id, birth]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """What the commands of SLURM need in their environment to find this cluster."""
        return {"SLURM_CONF": f"{self.directory}/slurm.conf"}

    # --------------------------------------------------------------------------------------------- start

    def start(self) -> bool:
        """Start every daemon and wait for an idle node; False if all of them were running already.

        Raises:
            ClusterError: one sentence with the remedy, after everything that was started has been stopped.
        """
        if absent := missing():
            raise ClusterError(f"SLURM is not installed here ({', '.join(absent)} missing): {INSTALL}")
        if len(f"{self.directory}/run/munge.socket") > SOCKET_LIMIT:
            raise ClusterError(f"{self.directory} is too long a path for a socket: choose a shorter one")
        processes = self.processes()
        if processes and all(processes.values()):
            return False
        self.stop()  # what is left of a broken one
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if any(self.directory.iterdir()):
                raise ClusterError(f"{self.directory} is not empty and holds no cluster: choose another folder")
            self.state.write_text("{}")
        except OSError as error:
            raise ClusterError(f"{self.directory} cannot be made ({error.strerror}): choose another folder") from error
        try:
            self._write_files()
            for name in self._daemons():
                self.start_daemon(name)
                if name == "slurmdbd":
                    self._ask("sacctmgr", "-i", "add", "cluster", "one")
        except BaseException:
            self.stop()
            raise
        return True

    def _write_files(self) -> None:
        """Configuration, munge key and an empty database."""
        folder, host = self.directory, socket.gethostname().split(".")[0]
        for name in ("run", "log", "state", "spool"):
            (folder / name).mkdir()
        for name in ("munge.key", "slurmdbd.conf"):
            (folder / name).touch(mode=0o600)  # their daemons refuse files that others can read
        (folder / "munge.key").write_bytes(os.urandom(1024))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        values: dict[str, Any] = {"folder": folder, "host": host, "user": _user(), "ports": _free_ports()}
        (folder / "slurm.conf").write_text(SLURM_CONF.format(**values, memory=memory))
        (folder / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(**values))
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        # SLURM wants devices and opens none: terminals. With plain files, where there are none, jobs see no numbers.
        devices = "/dev/tty[0-1]" if Path("/dev/tty1").exists() else f"{folder}/gpu[0-1]"
        for number in range(2):
            (folder / f"gpu{number}").touch()
        (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu Type=a100 File={devices}\n")
        command = [program("mariadb-install-db"), "--no-defaults", f"--datadir={folder}/mysql", f"--user={_user()}"]
        command += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        with (folder / "log" / "mariadb.log").open("w") as log:
            if subprocess.run(command, stdout=log, stderr=log, timeout=3 * START_SECONDS).returncode:
                raise ClusterError(f"the accounting database cannot be made: {_last_line(Path(log.name))}")

    def _daemons(self) -> dict[str, tuple[tuple[str, ...], Callable[[], bool]]]:
        """All daemons in the order of their start: a command that stays in the foreground, and whether it is ready."""
        folder, run = self.directory, self.directory / "run"
        files = {
            "key-file": folder / "munge.key",
            "socket": run / "munge.socket",
            "pid-file": run / "munged.pid",
            "log-file": folder / "log" / "munged.log",
            "seed-file": folder / "state" / "munge.seed",
        }
        # --force: temporary folders are not as locked up as munge likes; the key itself is for this cluster only.
        munged = ("munged", "--foreground", "--force", "--num-threads=10")
        # A throw-away database behind a private socket, hence no passwords, no network, no care for a power cut.
        mariadbd = ("mariadbd", "--no-defaults", f"--user={_user()}", f"--datadir={folder}/mysql")
        mariadbd += (f"--socket={run}/mysql.sock", f"--pid-file={run}/mariadbd.pid", "--skip-networking")
        mariadbd += ("--skip-grant-tables", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M")
        mariadbd += ("--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF")
        ping = ("mariadb-admin", "--no-defaults", f"--socket={run}/mysql.sock", "ping")
        conf = ("-D", "-f", f"{folder}/slurm.conf")
        return {
            "munged": (
                (*munged, *(f"--{name}={path}" for name, path in files.items())),
                lambda: self._ask("munge", "-n", "-S", str(run / "munge.socket")) is not None,
            ),
            "mariadbd": (mariadbd, lambda: self._ask(*ping) is not None),
            "slurmdbd": (("slurmdbd", "-D"), lambda: bool(self._ask("sacctmgr", "-n", "show", "tres"))),
            "slurmctld": (("slurmctld", *conf), lambda: self._ask("scontrol", "ping") is not None),
            "slurmd": (("slurmd", *conf), lambda: self.node() in ("idle", "mixed", "allocated")),
        }

    def start_daemon(self, name: str) -> None:
        """Start one daemon in a session of its own, which outlives this process, and wait until it answers."""
        (command, ready), output = self._daemons()[name], self.directory / "log" / f"{name}.out"
        with output.open("ab") as log:
            process = subprocess.Popen(
                [program(command[0]), *command[1:]],
                env=self._environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o022,
            )
        self.state.write_text(json.dumps(self._read() | {name: [process.pid, birth(process.pid)]}))
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if (code := process.poll()) is not None or time.monotonic() > deadline:
                what = f"gave no answer in {START_SECONDS:.0f} s" if code is None else f"ended with code {code}"
                said = [line for path in (output.with_suffix(".log"), output) if (line := _last_line(path))]
                raise ClusterError(f"{name} {what}: {' / '.join(said) or 'it wrote no log'}")
            time.sleep(0.1)
        process.returncode = 0  # it is meant to outlive this object: no warning about that

    def _environment(self) -> dict[str, str]:
        """What a daemon sees: nothing of the caller but the way to its programs."""
        folder = str(self.directory)
        own = {"PATH": search_path(), "HOME": folder, "LANG": "C.UTF-8", "MYSQL_UNIX_PORT": f"{folder}/run/mysql.sock"}
        return own | self.environment()

    def _ask(self, *command: str) -> str | None:
        """What a client prints; None where it fails or finds no daemon in time."""
        try:
            answer = subprocess.run(
                [program(command[0]), *command[1:]],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CLIENT_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout if answer.returncode == 0 else None

    # --------------------------------------------------------------------------------------------- stop

    def stop(self) -> bool:
        """End all jobs and daemons of this cluster and remove its folder; False if there was none."""
        if not self.state.exists():
            return False
        if self.processes().get("slurmctld"):
            self._ask("scancel", "--user", _user())
            deadline = time.monotonic() + END_SECONDS
            while self._ask("squeue", "-h") and time.monotonic() < deadline:
                time.sleep(0.2)
        for name in reversed(self.processes()):
            self.stop_daemon(name)
        # A slurmstepd whose job had not ended survives slurmd, and so may what the job itself started.
        end(with_text_in_environment(f"SLURM_CONF={self.directory}/slurm.conf"), seconds=1.0)
        shutil.rmtree(self.directory)
        return True

    def stop_daemon(self, name: str) -> None:
        """End one daemon, so that its absence can be tested."""
        end([self._read()[name]], END_SECONDS)

    # --------------------------------------------------------------------------------------------- state

    def processes(self) -> dict[str, int | None]:
        """Daemon -> process id, None where it has died or the id is by now another's."""
        return {name: pid if birth(pid) == born else None for name, (pid, born) in self._read().items()}

    def node(self) -> str:
        """The node's state in SLURM's words; empty where slurmctld does not answer."""
        return (self._ask("sinfo", "-h", "-N", "-p", "debug", "-o", "%T") or "").strip()

    def _read(self) -> dict[str, tuple[int, str]]:
        try:
            daemons: dict[str, tuple[int, str]] = json.loads(self.state.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (PermissionError, json.JSONDecodeError) as error:
            raise ClusterError(f"{self.state} cannot be read: choose another folder") from error
        return daemons


def birth(pid: int) -> str | None:
    """When a process started, in ticks since boot; None if there is none or it only waits for its parent to notice."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def end(processes: Iterable[tuple[int, str]], seconds: float) -> None:
    """SIGTERM, then after `seconds` SIGKILL, to those of the (pid, birth) that are still the same processes."""
    left = list(processes)
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        left = [(pid, born) for pid, born in left if birth(pid) == born]
        for pid, _ in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            for pid, _ in left:
                with contextlib.suppress(ChildProcessError):  # those started by this very process are its children
                    os.waitpid(pid, os.WNOHANG)
            left = [(pid, born) for pid, born in left if birth(pid) == born]
            time.sleep(0.05)
    if left:
        raise ClusterError(f"process {left[0][0]} cannot be ended: end it by hand and stop the cluster again")


def with_text_in_environment(text: str) -> list[tuple[int, str]]:
    """Processes of this user whose environment holds `text`: what jobs left running after their daemons are gone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if text.encode() in (entry / "environ").read_bytes() and (born := birth(int(entry.name))):
                    found.append((int(entry.name), born))
    return found


def _last_line(path: Path) -> str:
    """The last line of a log that names an error, as harmless ones may follow it; else the last one."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    wanted = [line for line in lines if "fatal" in line or "rror" in line] or lines
    return next((line.strip() for line in reversed(wanted) if line.strip()), "")


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError as error:
        raise ClusterError(f"user {os.getuid()} has no name here, which SLURM needs: add it to /etc/passwd") from error


def _free_ports() -> list[int]:
    """Three TCP ports, for slurmctld, slurmd and slurmdbd."""
    found: list[int] = []
    for port in random.sample(PORTS, 200):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            found.append(port)
        if len(found) == 3:
            return found
    raise ClusterError("no free TCP ports between 20000 and 32000: end what holds them")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests_slurm.local_cluster", description=LocalCluster.__doc__)
    parser.add_argument("command", choices=("start", "stop", "env"), help="env prints what a shell needs")
    parser.add_argument("--directory", type=Path, metavar="D", help="its folder; default: one of yours under /tmp")
    options = parser.parse_args(arguments)
    cluster = LocalCluster(options.directory)
    export = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in cluster.environment().items())
    try:
        if options.command == "start":
            new = cluster.start()
            print(
                f"the cluster in {cluster.directory} {'is up' if new else 'was running'}; its commands need\n{export}"
            )
        elif options.command == "stop":
            print(f"{'stopped' if cluster.stop() else 'no cluster in'} {cluster.directory}")
        else:
            print(export)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
