"""Pinned arithmetic: set before torch, recorded, the user's own value kept, what is not honoured said; the malloc."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from training import processor

SHOW = "import json; from training.processor import pins; print(json.dumps(pins()))"


def pinned(*lines: str, **variables: str) -> dict[str, str]:
    """What a new process records that runs these lines with these variables and no other of the pins."""
    others = {name: value for name, value in os.environ.items() if name not in processor.PINS}
    command = [sys.executable, "-c", "\n".join([*lines, SHOW])]
    root = Path(__file__).resolve().parents[1]
    answer = subprocess.run(command, env={**others, **variables}, cwd=root, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(answer.stdout)
    return found


@pytest.mark.skipif(platform.machine() != "x86_64", reason="what is pinned is of x86-64 processors")
def test_what_is_pinned_is_recorded_and_the_users_own_value_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pinned(**processor.pinned_arithmetic()) == processor.PINS
    assert pinned() == {}
    monkeypatch.setenv("MKL_CBWR", "AUTO")
    assert processor.pinned_arithmetic() == {**processor.PINS, "MKL_CBWR": "AUTO"}
    begun = "import os, torch; torch.backends.cpu.get_cpu_capability(); os.environ['ATEN_CPU_CAPABILITY'] = 'avx2'"
    late = pinned(begun, ATEN_CPU_CAPABILITY="default")
    assert late == {"ATEN_CPU_CAPABILITY": "avx2, not honoured: DEFAULT"}


def test_another_malloc_is_optional_and_the_users_own_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Installed:
        def locate_file(self, name: str) -> Path:
            return tmp_path / Path(name).name

    monkeypatch.setattr(processor.importlib.metadata, "distribution", lambda name: Installed())
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    assert processor.quicker_malloc() == {}  # another system: no such file
    (tmp_path / "libmimalloc.so").touch()
    assert processor.quicker_malloc() == {"LD_PRELOAD": str(tmp_path / "libmimalloc.so")}
    monkeypatch.setenv("LD_PRELOAD", "mine.so")
    assert processor.quicker_malloc() == {}
