"""Who imports whom: the rooms of docs/architecture.md, one by one, and no circle anywhere, not even for types."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from test_policy import PACKAGES, ROOT, sources

from lumix.registry import PARTS

LEAVES = {"lumix.batch", "lumix.functional", "lumix.inputs", "lumix.random", "lumix.registry"}
METHOD = {*LEAVES, "lumix.automix", "lumix.losses", "lumix.mixers", "lumix.rules", "lumix.semi"}
# Room -> the rooms that it may import, beside itself. Types count: an import under TYPE_CHECKING is an import.
ALLOWED: dict[str, set[str]] = {
    "lumix": METHOD,
    "lumix.inputs": set(),
    "lumix.functional": set(),
    "lumix.batch": {"lumix.inputs"},
    "lumix.random": {"lumix.inputs"},
    "lumix.registry": {"lumix.inputs"},
    "lumix.mixers": LEAVES,
    "lumix.rules": LEAVES,
    "lumix.losses": {*LEAVES, "lumix.rules"},
    "lumix.automix": {*LEAVES, "lumix.losses", "lumix.mixers"},
    "lumix.semi": {*LEAVES, "lumix.automix", "lumix.losses", "lumix.mixers"},
    "lumix.integrations": METHOD,
    "training": {*METHOD, "lumix", "lumix.integrations"},
    "evaluation": {*METHOD, "lumix", "lumix.integrations", "training"},
    "experiments": {*METHOD, "lumix", "training", "evaluation"},
    "slurm": {*METHOD, "lumix", "training", "evaluation", "experiments"},
    "report": {*METHOD, "lumix", "training", "evaluation", "experiments"},
    "paper_figures": {*METHOD, "lumix", "training", "evaluation", "experiments", "report"},
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_of(path): path for path in sources(*PACKAGES)}


def room_of(module: str) -> str:
    """The longest room name that a module's name begins with."""
    return max((room for room in ALLOWED if f"{module}.".startswith(f"{room}.")), key=len)


def imports_of(module: str) -> set[str]:
    """The modules of this project and the packages of others that a module imports anywhere, for types included."""
    found = set()
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; write the full name"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & SOURCES.keys() or {node.module}
    return found


IMPORTS = {module: imports_of(module) for module in SOURCES}


def test_there_is_something_to_check() -> None:
    assert {room_of(module) for module in SOURCES} == set(ALLOWED)
    assert len(SOURCES) > 100


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_one_way(module: str) -> None:
    room = room_of(module)
    rooms = {room_of(name) for name in IMPORTS[module] & SOURCES.keys()}
    assert rooms <= {*ALLOWED[room], room}
    assert "tests" not in {name.split(".")[0] for name in IMPORTS[module]}


@pytest.mark.parametrize("module", [module for module in SOURCES if room_of(module) in {*METHOD, "lumix"}])
def test_the_method_needs_torch_alone(module: str) -> None:
    packages = {name.split(".")[0] for name in IMPORTS[module]}
    optional = {"scipy"} if room_of(module) == "lumix.mixers" else set()
    assert packages - sys.stdlib_module_names - optional <= {"torch", "lumix"}


def test_no_method_imports_from_the_file_of_another() -> None:
    homes = {part.cls.__module__ for part in PARTS.values() if part.kind in ("mixer", "step")}
    for module in homes & SOURCES.keys():
        assert not IMPORTS[module] & (homes - {module})


def test_there_is_no_circle() -> None:
    """Every module comes after what it imports."""
    waiting = {module: (imports & SOURCES.keys()) - {module} for module, imports in IMPORTS.items()}
    while waiting:
        ready = {module for module, needs in waiting.items() if not needs & waiting.keys()}
        assert ready, f"a circle among {sorted(waiting)}"
        for module in ready:
            del waiting[module]


def python(code: str) -> list[str]:
    """Run code in a fresh interpreter, from the project's folder, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_method_and_the_tables_is_quick() -> None:
    loaded = python("import sys, lumix, experiments.registry, experiments.scales.paper; print(*sys.modules)")
    assert not {"timm", "torchvision", "scipy", "pandas", "sklearn"} & set(loaded)


def test_every_public_name_works_with_torch_alone() -> None:
    code = (
        "import sys, lumix; print(*[getattr(lumix, n) and n for n in lumix.__all__]); print('--'); print(*sys.modules)"
    )
    output = python(code)
    names, loaded = output[: output.index("--")], set(output[output.index("--") :])
    assert {"Mixup", "CutMix", "Switch", "LUMixRule", "MixLoss", "functional"} <= set(names)
    assert "torch" in loaded
    assert not {"timm", "torchvision", "scipy", "pandas", "sklearn"} & loaded
