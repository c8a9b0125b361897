"""The configuration files of a one-node SLURM that lives in one folder; every line was tried on Debian's 22.05.

Two partitions, debug and a100, are requeued when a job of the third, high, wants their place. The node has two CPUs
whatever the machine has, and two GPUs that are terminals: SLURM wants device files and opens none of them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

NAME = "one"
SOCKET_LIMIT = 107  # bytes of the path of a Unix socket


@dataclass(frozen=True)
class Layout:
    """Where everything of one cluster lies."""

    directory: Path

    @property
    def conf(self) -> Path:
        return self.directory / "slurm.conf"

    @property
    def munge(self) -> Path:
        return self.directory / "run" / "munge.socket"

    @property
    def database(self) -> Path:
        return self.directory / "run" / "mysql.sock"

    @property
    def state(self) -> Path:
        return self.directory / "cluster.json"

    def log(self, daemon: str) -> Path:
        return self.directory / "log" / f"{daemon}.log"

    def pid(self, daemon: str) -> Path:
        return self.directory / "run" / f"{daemon}.pid"


@dataclass(frozen=True)
class Settings:
    """What differs from one machine to the next. `ports` are those of slurmctld, slurmd and slurmdbd."""

    host: str
    user: str
    ports: tuple[int, int, int]
    accounting: bool


def memory_megabytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def write_files(layout: Layout, settings: Settings) -> None:
    """Write every configuration file and the munge key, and make the folders that they name."""
    for name in ("run", "log", "state", "spool"):
        (layout.directory / name).mkdir(exist_ok=True)
    key = layout.directory / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    layout.conf.write_text(slurm_conf(layout, settings))
    gpus = f"NodeName={settings.host} Name=gpu Type=a100 File={_devices(layout)}\n"
    (layout.directory / "gres.conf").write_text(gpus)
    (layout.directory / "cgroup.conf").write_text("CgroupAutomount=no\n")
    if settings.accounting:
        conf = layout.directory / "slurmdbd.conf"
        conf.touch(mode=0o600)  # slurmdbd refuses a file that others can read
        conf.write_text(slurmdbd_conf(layout, settings))


def _devices(layout: Layout) -> str:
    """Two files to stand for GPUs. With plain files, where containers hide terminals, jobs see no device numbers."""
    if Path("/dev/tty0").exists() and Path("/dev/tty1").exists():
        return "/dev/tty[0-1]"
    for number in range(2):
        (layout.directory / f"gpu{number}").touch()
    return f"{layout.directory}/gpu[0-1]"


def slurm_conf(layout: Layout, settings: Settings) -> str:
    """slurm.conf. A requeued job is held for cred_expire + 1 seconds: 121 by default, 6 here."""
    directory, host = layout.directory, settings.host
    return f"""ClusterName={NAME}
SlurmctldHost={host}(127.0.0.1)
SlurmUser={settings.user}
SlurmdUser={settings.user}
AuthType=auth/munge
AuthInfo=socket={layout.munge},cred_expire=5
CryptoType=crypto/munge
SlurmctldPort={settings.ports[0]}
SlurmdPort={settings.ports[1]}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={layout.pid("slurmctld")}
SlurmdPidFile={layout.pid("slurmd")}
SlurmctldLogFile={layout.log("slurmctld")}
SlurmdLogFile={layout.log("slurmd")}
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
{_accounting(layout, settings)}
{_node_and_partitions(settings.host)}
"""


def _node_and_partitions(host: str) -> str:
    """One node; jobs in `high` take it from those in `debug` and `a100`, which are requeued."""
    return f"""NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory_megabytes()} Gres=gpu:a100:2 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=a100 Nodes={host} MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF"""


def _accounting(layout: Layout, settings: Settings) -> str:
    if not settings.accounting:
        return "AccountingStorageType=accounting_storage/none"
    # The munge socket again: for the way to slurmdbd AuthInfo does not count.
    return f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={settings.ports[2]}
AccountingStoragePass={layout.munge}"""


def slurmdbd_conf(layout: Layout, settings: Settings) -> str:
    return f"""AuthType=auth/munge
AuthInfo=socket={layout.munge}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={settings.ports[2]}
SlurmUser={settings.user}
LogFile={layout.log("slurmdbd")}
PidFile={layout.pid("slurmdbd")}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={settings.user}
StorageLoc=slurm_acct
"""
