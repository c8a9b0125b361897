"""The house rules that a reviewer would otherwise have to watch: sizes, seeds, pins."""

import ast
import json
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("lumix", "training", "evaluation", "experiments", "slurm", "report", "paper_figures")


def sources(*packages):
    return sorted(p for package in packages for p in (ROOT / package).rglob("*.py") if "__pycache__" not in p.parts)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def room_of(path):
    """The room of architecture.md that a file belongs to."""
    return path.relative_to(ROOT).parts[0]


SOURCES = sources(*PACKAGES)

# Lines of Python that a room may have, notebooks' cells included: what comes into a full room takes something out.
BUDGETS = {
    "lumix": 4738,
    "training": 4042,
    "evaluation": 1900,
    "experiments": 5247,
    "slurm": 900,
    "report": 686,
    "paper_figures": 1075,
    "benchmarks": 1290,
    "tests": 14179,
    "tests_slurm": 1100,
}


@pytest.mark.parametrize("room", BUDGETS)
def test_a_room_keeps_its_budget(room):
    lines = sum(len(path.read_text().splitlines()) for path in sources(room))
    for path in (ROOT / room).glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        lines += sum(len("".join(cell["source"]).splitlines()) for cell in cells if cell["cell_type"] == "code")
    assert 0 < lines <= BUDGETS[room]


@pytest.mark.parametrize("path", [p for p in SOURCES if p.stat().st_size], ids=name_of)
def test_every_file_says_first_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def calls_of(path):
    """Calls of methods and of functions of modules: as written, and the last name behind its dot (".cuda")."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found |= {ast.unparse(node.func), f".{node.func.attr}"}
    return found


@pytest.mark.parametrize("path", [p for p in SOURCES if room_of(p) in ("lumix", "training", "evaluation")], ids=name_of)
def test_no_hidden_device_and_no_global_seed(path):
    calls = calls_of(path)
    assert ".cuda" not in calls
    if room_of(path) != "training":  # where files are decoded, transforms know nothing but the global state
        assert not {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed_all"} & calls
        assert not [c for c in calls if c.startswith(("np.random.", "numpy.random.", "random."))]


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def canonical(name):
    return name.lower().replace("_", "-").replace(".", "-")


PINS = [
    Requirement(line.rstrip("\\").strip()) for line in LOCK.splitlines() if line and not line.startswith((" ", "#"))
]
# The lock is universal: numpy and some others have one pin for Python 3.11 and one for what is newer.
INTERPRETERS = ["3.11.7", "3.12.1", "3.13.1"]


def locked(python_version):
    """Name -> version of every pin for an interpreter on this system; a name may occur once."""
    environment = {"python_full_version": python_version, "python_version": python_version.rpartition(".")[0]}
    pins = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate(environment):
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            assert canonical(pin.name) not in pins, f"{pin.name} is pinned twice"
            pins[canonical(pin.name)] = specifier.version
    return pins


def wanted():
    """Every requirement of pyproject.toml outside the project itself."""
    texts = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    return [r for r in map(Requirement, texts) if r.name != PROJECT["name"]]


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_the_lock_pins_everything_once_within_the_ranges(interpreter):
    pins = locked(interpreter)
    assert len(wanted()) > 15
    for requirement in wanted():
        assert requirement.specifier.contains(pins[canonical(requirement.name)]), requirement


def test_the_lock_is_hashed_and_holds_no_address():
    assert "://" not in LOCK
    assert LOCK.count("--hash=sha256:") >= len(PINS) > 50


def test_what_installs_and_builds_is_pinned_with_hashes_too():
    assert {"uv", "setuptools"} <= locked("3.12.1").keys()
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "pip install" in line or "pip sync" in line]
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-build-isolation" in line for line in installs)


def test_the_method_needs_torch_alone():
    assert [Requirement(r).name for r in PROJECT["dependencies"]] == ["torch"]


def test_the_conda_environment_carries_the_same_versions():
    """conda gives the interpreter, the lock the rest; what is pinned beside it must agree with it."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    names = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    conda = dict(name.split("=", 1) for name in names if "=" in name)
    python_version = conda.pop("python").strip("=")
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python_version)
    pins = locked(f"{python_version}.1")
    assert ["-r", "requirements.lock"] in [line.split() for line in pip]
    listed = [Requirement(line) for line in pip if not line.startswith(("-", "."))]
    versions = conda | {r.name: str(r.specifier).removeprefix("==") for r in listed}
    assert {name: version.strip("=") for name, version in versions.items()} == {
        name: pins[canonical(name)] for name in versions
    }
