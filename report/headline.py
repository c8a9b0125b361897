"""The questions of the page, paired by seed: LUMix against CutMix and without random labels, DM(CE) against MCE."""

from dataclasses import dataclass
from typing import Any

from experiments.decoupled import STATIC_ETA, decoupled
from experiments.intervals import Interval, paired_differences, t_interval
from experiments.methods import HEADLINE_ROLE, PLAIN, constant_control, lumix
from lumix.registry import get_part
from report.formatting import STATISTICS, signed
from report.load import Results

PAPER_GAIN = 0.8  # Table 1, DeiT-S: 79.8 to 80.6; the text says 0.7 (I-19)
DECOUPLED_GAINS = {"mixup": 2.16, "cutmix": 1.04}  # Table A8, 15 %: 42.23 to 44.39, 43.81 to 44.85


@dataclass(frozen=True)
class Card:
    """A difference in the summary: what it compares, in points of top-1, and what the paper says of it."""

    title: str
    gap: Interval | None  # None where a run is missing
    text: str
    runs: tuple[str | None, ...] = ()  # keys of what it compares


@dataclass(frozen=True)
class Headline:
    """Run keys of CutMix, LUMix and the control, and what their differences are; None where a run is missing."""

    cutmix: str | None
    lumix: str | None
    constant: str | None
    gain: Interval | None
    control_gain: Interval | None
    lumix_over_control: Interval | None
    role: str = HEADLINE_ROLE
    statistic: str = "last"


def top1_by_seed(run: dict[str, Any], statistic: str = "last") -> dict[int, float]:
    """Top-1 by seed."""
    return {int(seed): result["top1"][statistic] for seed, result in run["seeds"].items()}


def paired_difference(run: dict[str, Any], base: dict[str, Any], statistic: str = "last") -> Interval | None:
    """Top-1 of `run` minus that of `base` over the seeds that both have; None without a common seed."""
    differences = paired_differences([top1_by_seed(run, statistic)], [top1_by_seed(base, statistic)])
    return t_interval(differences) if differences else None


def find(results: Results) -> Headline:
    """The headline of one scale, found by what the runs are and not by the name of a row.

    On the recipe of LUMix's tables where the scale has it, else on CutMix alone; by the statistic of its table.
    """
    runs = results.runs
    configs = {key: run["config"] for key, run in runs.items()}
    usual = [run for run in configs.values() if run.model.role == HEADLINE_ROLE and run.method == "mixup_cutmix"]
    bases = usual or [run for run in configs.values() if run.method == "cutmix" and lumix(run).key in runs]
    # Several baselines differ in data or budget: the one that LUMix was run on comes first.
    bases.sort(key=lambda run: (lumix(run).key not in runs, run.key))
    wanted = (bases[0], lumix(bases[0]), constant_control(bases[0])) if bases else ()
    cutmix, full, constant = [run.key if run.key in runs else None for run in wanted] or [None] * 3
    statistic = statistic_of(results, cutmix)

    def gap(key: str | None, base: str | None) -> Interval | None:
        return paired_difference(runs[key], runs[base], statistic) if key and base else None

    gaps = (gap(full, cutmix), gap(constant, cutmix), gap(full, constant))
    role = bases[0].model.role if bases else HEADLINE_ROLE
    return Headline(cutmix, full, constant, *gaps, role=role, statistic=statistic)


def statistic_of(results: Results, key: str | None) -> str:
    """What the table of a run shows of it."""
    return next((r["statistic"] for r in results.records.values() if key in r["runs"]), "last")


def cards(results: Results, found: Headline) -> list[Card]:
    """The differences that the summary of a scale shows: `found` ones of LUMix, then those of Decoupled Mixup."""
    claim = f"what the paper claims: {signed(PAPER_GAIN, 1)} points on ImageNet with DeiT-S"
    omitted = "the control that the paper omits: LUMix without randomness"
    noise = "what the randomness of λr itself adds; the expected gradient is the same"
    return [
        Card("LUMix against CutMix", found.gain, claim, (found.lumix, found.cutmix)),
        Card("Constant λr = 1/2 against CutMix", found.control_gain, omitted, (found.constant, found.cutmix)),
        Card("LUMix against constant λr = 1/2", found.lumix_over_control, noise, (found.lumix, found.constant)),
        *(_decoupled_card(results, method, gain) for method, gain in DECOUPLED_GAINS.items()),
    ]


def decoupled_pair(results: Results, method: str) -> tuple[str, str] | None:
    """Keys of DM(CE) and of MCE that differ in the loss alone; of several such pairs the one with the most seeds."""
    runs = results.runs
    pairs = [
        (decoupled(run["config"], STATIC_ETA).key, key)
        for key, run in runs.items()
        if run["config"].method == method and run["config"].loss == PLAIN
    ]
    pairs = [pair for pair in pairs if pair[0] in runs and paired_difference(runs[pair[0]], runs[pair[1]])]
    return max(pairs, key=lambda pair: min(len(runs[key]["seeds"]) for key in pair), default=None)


def _decoupled_card(results: Results, method: str, gain: float) -> Card:
    title = f"DM(CE) against MCE at equal α, {get_part(method).title}"
    text = f"Table A8, 15 % of CIFAR-100, each loss with an α of its own: {signed(gain)}"
    pair = decoupled_pair(results, method)
    if pair is None:
        return Card(title, None, text)
    runs = results.runs
    run, base = (runs[key] for key in pair)
    statistic = statistic_of(results, pair[0])
    here = f"here {STATISTICS[statistic]}, role {run['config'].model.role}; {text}"
    return Card(title, paired_difference(run, base, statistic), here, pair)


def reading(gain: Interval | None) -> str:
    """What the interval allows one to say about a gain as large as the paper's, in one or two sentences."""
    if gain is None:
        return "CutMix and LUMix have no common finished seed here, so there is nothing to read yet."
    if gain.low is None or gain.high is None:
        return f"With n = {gain.n} there is no interval here, so chance cannot be excluded."
    half_width = (gain.high - gain.low) / 2
    if gain.low > 0:
        sign = "LUMix is ahead of CutMix here: the interval lies above zero."
    elif gain.high < 0:
        sign = "LUMix is behind CutMix here: the interval lies below zero."
    else:
        sign = "The interval contains zero: no difference between LUMix and CutMix can be told here."
    # An interval of this half-width around a true effect lies above zero in all but 2.5 % of the cases.
    enough = "fine enough" if half_width <= PAPER_GAIN / 2 else "too wide"
    inside = "contains" if gain.low <= PAPER_GAIN <= gain.high else "excludes"
    return (
        f"{sign} Its half-width of {half_width:.2f} is {enough} to show an effect of the paper's +{PAPER_GAIN} "
        f"reliably; on this data it {inside} that value."
    )
