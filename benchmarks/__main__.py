"""`python -m benchmarks`: how fast lumix is beside its peers and the floor of the machine. See docs/performance.md.

python -m benchmarks                         all rows on the CPU; results to benchmarks/results/<device>.json and .md
python -m benchmarks --row loss --row puzzle   these alone, printed, written only where --out says
python -m benchmarks --quick                 for CI: less time, half of each target, exit status 3 where one is missed
python -m benchmarks --device cuda           the rows of a GPU
python -m benchmarks page                    docs/performance.md anew from the committed results
"""

import argparse
from pathlib import Path

from experiments.console import run


def build_parser() -> argparse.ArgumentParser:
    from textwrap import dedent

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=dedent(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=["run", "page"], default="run", help="default: run")
    parser.add_argument("--row", action="append", metavar="NAME", help="a row alone; may be given several times")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU (default: 1)")
    parser.add_argument("--quick", action="store_true", help="shorter, with half of each target as the limit")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of the results; Markdown goes beside it")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 1 where a row does not compute what its peers do; 2 for wrong usage; 3 for a quick miss."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command == "page":
        from benchmarks.page import write_page

        print(f"wrote {write_page()}")
        return 0
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, not {options.threads}")
    return run_rows(parser, options)


def run_rows(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    import torch

    from benchmarks import recording
    from benchmarks.measure import Setting
    from training.run_directory import write_json, write_text

    unknown = [name for name in options.row or () if name not in recording.ROWS]
    if unknown:
        parser.error(f"no row is called {unknown[0]!r}: choose from {', '.join(recording.ROWS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU is visible to torch here")
    short: dict[str, float] = {"rounds": 5, "seconds": 0.01, "budget": 5.0} if options.quick else {}
    setting = Setting(options.device, options.threads, quick=options.quick, **short)  # type: ignore[arg-type]
    names = options.row or (recording.QUICK_ROWS if options.quick else tuple(recording.ROWS))
    result = recording.run(list(names), setting)
    out = options.out
    if out is None and not options.row and not options.quick:
        out = recording.RESULTS / f"{recording.slug(result)}.json"
    if out is not None:
        write_json(out, result)
        write_text(out.with_suffix(".md"), recording.markdown(result))
        print(f"wrote {out} and {out.with_suffix('.md').name}")
    if options.device == "cpu":
        print("Rows on a GPU: not run here (--device cuda" + ("" if torch.cuda.is_available() else "; no GPU") + ")")
    failures = recording.summary(result)
    for failure in failures:
        recording.complain(failure)
    unequal = any(row["status"] == "not equal" for row in result["rows"])
    missed = any(row["status"] == "below target" for row in result["rows"])
    if unequal:
        return 1
    return 3 if options.quick and missed else 0


if __name__ == "__main__":
    run(main)
