"""Row 7: from JPEG files to training images, the fast path against timm's transform; see input_pipeline.py."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks import input_pipeline
from benchmarks.measure import Setting, Timings, compare
from benchmarks.rows import Case, Goal, Skipped, faster, timed_case

NAME = "input"
TITLE = "Input: JPEG to 224 px"
PEERS = "timm's training transform on Pillow"
FILES = 60

DECODING = "nearly all of both is decoding: its share moves with the other work on the machine, 1.9 to 2.1 over runs"


def cases(setting: Setting) -> Iterator[Case]:
    if setting.device != "cpu":
        raise Skipped("decoding happens on the CPU: run it there")
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise Skipped("OpenCV, which the fast path decodes with, is not installed") from error
    with input_pipeline.jpegs(FILES) as paths:
        try:
            input_pipeline.check(paths)
        except ValueError as error:
            raise AssertionError(str(error)) from error
        timings = compare(input_pipeline.cases(paths), setting)
        yield timed_case(f"{FILES} files of 500 x 375, one core", timings, goals(timings))
        if setting.threads == 1:
            yield scaling(paths, setting)


def goals(timings: Timings) -> list[Goal]:
    wanted = input_pipeline.TARGETS
    return [
        faster(timings, "crop: timm", wanted["crop"], "crop: fast", why=DECODING),
        faster(timings, "full: timm", wanted["full"], "crop: fast"),
    ]


def scaling(paths: list[str], setting: Setting) -> Case:
    """The loader with one and with two processes: on the clock on the wall, as the work is done elsewhere."""
    on_wall = replace(setting, threads=2, rounds=min(setting.rounds, 5), seconds=0.0)
    loaders: dict[str, Any] = {f"{n} workers": input_pipeline.loader_case(paths, n) for n in (1, 2)}
    timings = compare(loaders, on_wall)
    goal = Goal(
        "rate of two workers as a share of twice the rate of one",
        halved(timings.ratio("1 workers", "2 workers")),
        input_pipeline.TARGETS["scaling"],
        unit="",
        why="two processes need two idle cores",
    )
    return timed_case("loader, 800 images, wall time", timings, [goal])


def halved(spread: Any) -> Any:
    return replace(spread, median=spread.median / 2, low=spread.low / 2, high=spread.high / 2)
