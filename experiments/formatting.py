"""Numbers as people read them, on a terminal and on the page. A missing number is a dash, never a zero."""

from collections.abc import Mapping
from typing import Any

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def number(value: float | None, digits: int = 1) -> str:
    """80.6; a dash for nothing."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """+0.80 or −0.35; a dash for nothing."""
    return DASH if value is None else f"{value:+.{digits}f}".replace("-", MINUS)


def interval(low: float | None, high: float | None) -> str:
    """[−0.70, +0.01]; nothing where there is no interval (fewer than two seeds)."""
    return "" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"


def measured(cell: Mapping[str, Any], digits: int = 1) -> str:
    """92.1 ± 0.8 (n = 8), or why there is no number."""
    if cell["status"] != "done" or cell["mean"] is None:
        return str(cell["status"])
    spread = "" if cell["std"] is None else f" ± {number(cell['std'], digits)}"
    return f"{number(cell['mean'], digits)}{spread} (n = {cell['n']})"


def difference(cell: Mapping[str, Any]) -> str:
    """+0.42 [−0.10, +0.94] to the cell that it is compared with, paired by seed; empty where there is none."""
    found = cell["difference"]
    if not found:
        return ""
    why = "n = 1, no interval" if found["n"] == 1 else "equal in every seed"
    return f"{signed(found['mean'])} {interval(found['low'], found['high']) or f'({why})'}"
