"""What the tests of figures share: they draw without a screen, and draw the same bytes twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import style

from report.load import Results


def texts(figure: Any) -> str:
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def check_names_its_data_and_is_stable(draw: Callable[[Results], Any], results: Results, folder: Path) -> None:
    files = []
    for name in ("first", "second"):
        figure = draw(results)
        assert "NOT ImageNet" in texts(figure)
        assert "not run" not in texts(figure)
        files.append([path.read_bytes() for path in style.save(figure, "figure", folder / name)])
    assert files[0] == files[1]
