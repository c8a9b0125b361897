"""Numbers as people read them, on a terminal and on the page. A missing number is a dash, never a zero."""

from collections.abc import Mapping
from typing import Any

from experiments.intervals import LEAST, MARGIN
from experiments.verdicts import PRIMARY

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def number(value: float | None, digits: int = 1) -> str:
    """80.6; a dash for nothing."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """+0.80 or −0.35; a dash for nothing."""
    return DASH if value is None else f"{value:+.{digits}f}".replace("-", MINUS)


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """[−0.70, +0.01]; nothing where there is no interval (fewer than five seeds)."""
    return "" if low is None or high is None else f"[{signed(low, digits)}, {signed(high, digits)}]"


def paper(cell: Mapping[str, Any]) -> str:
    """The paper's cell with as many decimals as it prints; a dash for nothing."""
    return (signed if cell["gain"] else number)(cell["paper"], cell["digits"])


def measured(cell: Mapping[str, Any]) -> str:
    """92.1 ± 0.8 (n = 8), an average gain with its sign, or why there is no number; decimals as the paper's."""
    if cell["status"] != "done" or cell["mean"] is None:
        return str(cell["status"])
    if cell["gain"]:
        return f"{signed(cell['mean'], cell['digits'])} (n = {cell['n']})"
    spread = "" if cell["std"] is None else f" ± {number(cell['std'], cell['digits'])}"
    return f"{number(cell['mean'], cell['digits'])}{spread} (n = {cell['n']})"


def difference(cell: Mapping[str, Any]) -> str:
    """+0.42 [−0.10, +0.94] to the cell that it is compared with, paired by seed; empty where there is none.

    The number of seeds stands beside it where it is not the cell's own, or allows no interval.
    """
    if not (found := cell["difference"]):
        return ""
    digits = max(2, cell["digits"])
    if bounds := interval(found["low"], found["high"], digits):
        return f"{signed(found['mean'], digits)} {bounds}" + (f" (n = {found['n']})" if found["n"] != cell["n"] else "")
    why = "equal in every seed" if found["n"] >= LEAST else f"n = {found['n']}"
    return f"{signed(found['mean'], digits)} ({why})"


def paper_difference(cell: Mapping[str, Any]) -> str:
    """The difference between the paper's own two cells; empty where the cell has none."""
    found = cell["difference"]
    return signed(found["paper"], cell["digits"]) if found and found["paper"] is not None else ""


def correction(claim: Mapping[str, Any]) -> str:
    """What becomes of a judged claim among all of its family, and which difference such seeds would show."""
    how = "Holm" if claim["family"] == PRIMARY else "Benjamini-Hochberg"
    text = (
        f"{claim['family'].capitalize()}: p = {claim['p']:.2g}, {claim['corrected']:.2g} by {how}, tests: {claim['of']}"
    )
    if claim["counted"] != claim["id"]:
        text += f", where it is counted as {claim['counted']}"
    if claim["p_equal"] is not None:
        text += f"; that it is {MARGIN:g} points or more: p = {claim['p_equal']:.2g}, {claim['corrected_equal']:.2g}"
    if claim["alone"] != claim["verdict"]:
        text += f"; by itself it would be {claim['alone']}"
    if claim["excluded"] is not None:
        text += f". The paper's {signed(claim['paper'])} is {'' if claim['excluded'] else 'not '}excluded"
    if claim["detectable"] is not None:
        text += f". Such seeds show differences above {claim['detectable']:.2f} (power 80 %, corrected)"
    return f"{text}."
