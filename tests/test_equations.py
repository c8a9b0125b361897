"""docs/equations.md and the docstrings of lumix hold the same equations: from number to line, from line to number."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAPERS = "LUMix|DM|TransMix|AutoMix|SAMix|Puzzle-Mix|FixMatch|MixMatch|Self-Tuning"
LABEL = re.compile(rf"\b((?:{PAPERS}), (?:equations? \d[\w ,]*|[A-Za-z][\w.() ]*)):")
INDEX = re.findall(r"^\| ([^|]+) \| `([\w.]+)` \|", (ROOT / "docs" / "equations.md").read_text(), flags=re.MULTILINE)


def definitions():
    """Dotted path -> docstring of every function, class and method of lumix."""

    def walk(node, path):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield f"{path}.{child.name}", " ".join((ast.get_docstring(child) or "").split())
                yield from walk(child, f"{path}.{child.name}")

    found = {}
    for file in (ROOT / "lumix").rglob("*.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        found |= dict(walk(ast.parse(file.read_text()), module))
    return found


DEFINED = definitions()


def test_the_index_is_what_the_docstrings_say() -> None:
    labels = {(label, path) for path, text in DEFINED.items() for label in LABEL.findall(text)}
    assert set(INDEX) == labels
    assert len(INDEX) == len(set(INDEX)) > 30


def test_every_number_that_a_docstring_mentions_is_in_the_index() -> None:
    listed = {int(number) for label, _ in INDEX for number in re.findall(r"\d+", label)} | set(range(8, 12))
    for path, text in DEFINED.items():
        for mention in re.findall(r"[Ee]quations? (\d+(?:(?:, | and | to )\d+)*)", text):
            assert {int(number) for number in re.findall(r"\d+", mention)} <= listed, path
