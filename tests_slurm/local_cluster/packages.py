"""Which programs of Debian's SLURM the local cluster needs, and the command that installs them."""

import os
import shutil
from pathlib import Path

INSTALL = (
    "apt-get install -y --no-install-recommends "
    "slurmctld slurmd slurm-client munge slurmdbd slurm-wlm-mysql-plugin mariadb-server"
)
ALWAYS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
ACCOUNTING = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db", "mariadb-admin")
PLUGIN = "accounting_storage_mysql.so"
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # an ordinary user's PATH lacks them


def search_path() -> str:
    """PATH with the folders of system daemons."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])


def program(name: str) -> str:
    """The full path of a program; its bare name where there is none."""
    return shutil.which(name, path=search_path()) or name


def missing(accounting: bool = True) -> list[str]:
    """The programs that are not installed here, none if all are."""
    wanted = ALWAYS + (ACCOUNTING if accounting else ())
    absent = [name for name in wanted if shutil.which(name, path=search_path()) is None]
    if accounting and not any(Path("/usr/lib").glob(f"**/{PLUGIN}")):
        absent.append(PLUGIN)
    return absent
