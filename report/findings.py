"""What was found on photographs: the primary claims in words, for the first page, the README and the forest plot."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.intervals import LEAST, MARGIN
from experiments.scale import get_scale
from experiments.verdicts import Primary, read_primary
from report import formatting
from report.load import Results, all_results

PICTURE = "primary_claims.png"  # in report/figures, and a copy in docs that the README shows
MARKS = "<!-- found: made by python -m report readme -->", "<!-- end of found -->"
KNOWN = {  # claims of question 2, by which it is read (docs/small-scale.md)
    "known-cutmix": "CutMix over plain training",
    "known-mixup": "Mixup over plain training",
    "known-puzzlemix": "Puzzle-Mix over CutMix",
}
SCALES = {  # what is not run where such a scale has no results
    "small": "of the protocol on photographs (scale small)",
    "lab": "at 32 pixels on a GPU (scale lab)",
    "paper": "on ImageNet (scale paper)",
}


class Finding(NamedTuple):
    """A primary question at a scale that judges claims, and the record of its claim, None where nothing was run."""

    question: Primary
    scale: str
    claim: dict[str, Any] | None

    @property
    def gap(self) -> dict[str, Any]:
        """The difference as cells of tables have it."""
        known = self.claim or {}
        bounds = {"mean": known.get("estimate"), "low": known.get("low"), "high": known.get("high")}
        return bounds | {"n": known.get("n", 0), "paper": self.question.difference}


def judging(every: list[Results]) -> list[Results]:
    """The scales with results that judge claims."""
    return [results for results in every if results.records and not get_scale(results.scale).exercises]


def find(every: list[Results]) -> list[Finding]:
    """Each question of both papers at each of these scales that has a number of it; at the first where none has."""
    findings, judges = [], judging(every)
    for one in read_primary():
        asked = [
            Finding(one, results.scale, claim if claim and claim["n"] else None)
            for results in judges
            for other, claim in results.primary
            if other == one
        ]
        findings += [finding for finding in asked if finding.claim] or asked[:1]
    return findings


def unjudged(claim: dict[str, Any]) -> str:
    """Why a claim has numbers and no verdict."""
    return "too few for an interval" if claim["low"] is None else "no verdict before its last block"


def outcome(claim: dict[str, Any]) -> str:
    """+0.14 [−0.49, +0.78], n = 8, inconclusive; excludes the paper's +0.8."""
    text = f"{difference(claim)}, n = {claim['n']}, {claim['verdict'] or unjudged(claim)}"
    if claim["excluded"] is None:
        return text
    return f"{text}; {'excludes' if claim['excluded'] else 'allows'} the paper’s {formatting.short(claim['paper'])}"


def lead(every: list[Results]) -> str:
    """On what data all that follows was found, and what was not run at all."""
    ran: dict[str, list[str]] = {}
    judges = judging(every)
    for results in judges:
        ran.setdefault(setting(results), []).append(f"scale {results.scale}")
    found = "; ".join(f"{', '.join(scales)}: {what}" for what, scales in ran.items())
    text = f"On photographs ({found}), in points of top-1 with 95 % intervals over n seeds. " if found else ""
    missing = [what for scale, what in SCALES.items() if scale not in {results.scale for results in judges}]
    listed = " or ".join(filter(None, (", ".join(missing[:-1]), *missing[-1:])))
    text += f"{controls(every)} " if found else ""
    return f"{text}Nothing was run {listed}." if missing else text.strip()


def controls(every: list[Results]) -> str:
    """Whether the setting shows what is known of mixing: if not, all else says nothing of the methods."""
    claims = (claim for one in judging(every) for record in one.records.values() for claim in record["claims"])
    found = {claim["id"]: claim for claim in claims if claim["id"] in KNOWN and claim["verdict"]}
    if found.keys() < KNOWN.keys():
        return "Question 2 of the protocol, whether this setting shows the known gains of mixing, was not run whole."
    cutmix, mixup, puzzlemix = (found[id] for id in KNOWN)
    seen = all((one["low"] or 0) > 0 for one in (cutmix, mixup)) and puzzlemix["estimate"] >= -MARGIN
    says = (
        "This setting shows the known gains of mixing"
        if seen
        else ("This setting does not show the known gains of mixing, so that what follows says nothing of the methods")
    )
    gains = [f"{KNOWN[id]} {difference(found[id])}" for id in KNOWN]
    return f"{says}: {', '.join(gains)}, n = {cutmix['n']}."


def difference(claim: dict[str, Any]) -> str:
    """+0.14 [−0.49, +0.78]."""
    found = [formatting.signed(claim["estimate"]), formatting.interval(claim["low"], claim["high"])]
    return " ".join(filter(None, found))


def told(every: list[Results], paper: str) -> str:
    """What was found of a paper by question: at the nearest scale with an interval, or where it has most seeds."""
    asked: dict[Primary, list[Finding]] = {}
    for one in find(every):
        if one.question.paper == paper:
            asked.setdefault(one.question, []).append(one)
    shown = [max(of, key=lambda one: min(one.gap["n"], LEAST)) for of in asked.values()]
    texts, said, several = [], "", len(judging(every)) > 1
    for question, scale, claim in shown:
        head, _, title = question.title.rpartition(": ")  # "DM(CE) over MCE at equal α: Mixup", the first said once
        text = f"{head}, {title}" if head and head != said else title
        where = f" (scale {scale})" if several else ""
        texts.append(f"{text}{where}: {outcome(claim) if claim else 'not run'}.")
        said = head
    return " ".join(texts) or "Not run."


def setting(results: Results) -> str:
    """Data and models behind the primary claims of a scale."""
    ids = {claim["id"] for _, claim in results.primary if claim}
    records = [r for r in results.records.values() if ids & {claim["id"] for claim in r["claims"]}]
    return formatting.setting({"runs": {key: run for r in records for key, run in r["runs"].items()}})


def lines(every: list[Results]) -> Iterator[str]:
    """The lines of the README."""
    yield from textwrap.wrap(lead(every), 126, break_on_hyphens=False)
    yield ""
    for paper, name in formatting.PAPERS.items():
        text = f"- **{name}.** {told(every, paper)}"
        yield from textwrap.wrap(text, 126, subsequent_indent="  ", break_on_hyphens=False)


def renewed(text: str, root: Path) -> str:
    """The README with what stands between the marks made anew from results/."""
    begin, end = (text.index(mark) for mark in MARKS)
    return text[: begin + len(MARKS[0])] + "\n\n" + "\n".join(lines(all_results(root))) + "\n\n" + text[end:]
