"""Writes each notebook (.ipynb) from its text twin (.py, percent format): python paper_figures/pair.py

The text is the source and is what gets reviewed. Cell ids count up and outputs are absent, so that equal texts give
equal notebooks.
"""

from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).parent


def texts() -> list[Path]:
    """The text twins: those Python files that begin with a Jupytext header."""
    return sorted(
        path for path in FOLDER.glob("*.py") if path.read_text(encoding="utf-8").startswith("# ---\n# jupyter:")
    )


def notebook(text: Path) -> str:
    """The notebook of a text twin, as the bytes of its file."""
    made = jupytext.read(text)
    for place, cell in enumerate(made.cells):
        cell.id = f"cell-{place}"
    # The version of Jupytext that wrote a notebook is no part of it.
    made.metadata.get("jupytext", {}).get("text_representation", {}).pop("jupytext_version", None)
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


if __name__ == "__main__":
    for path in texts():
        path.with_suffix(".ipynb").write_text(notebook(path), encoding="utf-8")
        print(path.with_suffix(".ipynb").name)
