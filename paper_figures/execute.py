"""Executes figure notebooks, as many at a time as there are cores: python paper_figures/execute.py NAME...

Each notebook writes its own files to report/figures; a fixed date and no timing keep an unchanged figure byte for byte.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
OPTIONS = ("--log-level", "WARN", "--to", "notebook", "--execute", "--ExecutePreprocessor.record_timing=False")


def execute(name: str) -> int:
    """The exit code of executing a notebook in a process of its own; its copy with outputs goes to build/notebooks."""
    command = [sys.executable, "-m", "nbconvert", *OPTIONS, "--output-dir", "build/notebooks", FOLDER / f"{name}.ipynb"]
    return subprocess.run(command, env={**os.environ, "SOURCE_DATE_EPOCH": "0"}, check=False).returncode


if __name__ == "__main__":
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        codes = dict(zip(sys.argv[1:], pool.map(execute, sys.argv[1:]), strict=True))
    if failed := [name for name, code in codes.items() if code]:
        sys.exit(f"these notebooks failed, see above: {', '.join(failed)}")
