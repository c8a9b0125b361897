"""The snapshot: the code of a submission, copied when it is submitted, so that later edits reach no queued job."""

import shutil
import subprocess
from pathlib import Path

PACKAGES = ("lumix", "training", "evaluation", "experiments", "slurm")
FILES = ("params.yaml", "pyproject.toml", "requirements.lock")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".ipynb_checkpoints")


def take_snapshot(root: Path, target: Path) -> None:
    """Copy the packages that a job needs from the project's root into `target`, which must not exist."""
    target.mkdir(parents=True)
    _note_commit(root, target)
    for name in PACKAGES:
        shutil.copytree(root / name, target / name, ignore=LEFT_OUT)
    for name in FILES:
        if (root / name).exists():
            shutil.copy2(root / name, target / name)


def _note_commit(root: Path, target: Path) -> None:
    """Make `target` a clone without files, so that a result names the commit of its submission, not a later one."""
    try:
        _git("clone", "--quiet", "--shared", "--no-checkout", str(root), str(target))
        _git("-C", str(target), "reset", "--quiet")  # fills the index, so that edits of the copy count as edits
    except (OSError, subprocess.SubprocessError):  # no git here, or no repository: results name no commit then either
        shutil.rmtree(target / ".git", ignore_errors=True)


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], capture_output=True, timeout=60, check=True)
