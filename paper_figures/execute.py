"""Executes figure notebooks, all or those named, as many at a time as there are cores: python paper_figures/execute.py

Each notebook writes its own files to report/figures; a fixed date and no timing keep an unchanged figure byte for byte.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
OPTIONS = (
    *("--log-level", "WARN", "--to", "notebook", "--execute", "--ExecutePreprocessor.record_timing=False"),
    "--ExecutePreprocessor.extra_arguments=['--log-level=ERROR']",  # kernels warn of TCP, which nobody else speaks here
)


def execute(path: Path) -> int:
    """The exit code of executing a notebook in a process of its own; its copy with outputs goes to build/notebooks."""
    command = [sys.executable, "-m", "nbconvert", *OPTIONS, "--output-dir", FOLDER.parent / "build/notebooks", path]
    return subprocess.run(command, env={**os.environ, "SOURCE_DATE_EPOCH": "0"}, check=False).returncode


if __name__ == "__main__":
    notebooks = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    names = sys.argv[1:] or list(notebooks)
    if unknown := [name for name in names if name not in notebooks]:
        sys.exit(f"no notebook {', '.join(unknown)} in paper_figures; there are {', '.join(notebooks)}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        codes = dict(zip(names, pool.map(execute, [notebooks[name] for name in names]), strict=True))
    if failed := [name for name, code in codes.items() if code]:
        sys.exit(f"these notebooks failed, see above: {', '.join(failed)}")
