"""What the tests of both command lines share: a folder with parameters and a call."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HELP = """
import sys
from {module}.__main__ import parser
parser().format_help()
print(*({{'yaml', 'scipy', 'numpy', 'lumix', 'submitit'}} & set(sys.modules)))
"""


def call(folder: Path, module: str, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m module` with arguments in a folder, or a program; without the machine's commands and cluster."""
    start = ["-c", code] if code else ["-m", module]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1", "PATH": "/nowhere"}
    environment.pop("LUMIX_CLUSTER", None)
    return subprocess.run(
        [sys.executable, *start, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def check_help_loads_nothing_of_weight(folder: Path, module: str) -> None:
    answer = call(folder, module, code=HELP.format(module=module))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == ""
