"""`python -m benchmarks`: how fast lumix is beside its peers and the floor of the machine. See docs/performance.md.

python -m benchmarks                         all rows on the CPU; results to benchmarks/results/<device>.csv
python -m benchmarks --row loss --row puzzle   these alone, printed, written only where --out says
python -m benchmarks --quick                 for CI: less time, half of each target, exit status 3 where one is missed
python -m benchmarks --device cuda           the rows of a GPU
python -m benchmarks page                    docs/performance.md anew from the committed results
"""

import argparse
import sys
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
    parser.add_argument("--out", type=Path, metavar="FILE", help="CSV of the results")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 1 where a row fails or is not what its peers compute; 2 for wrong usage; 3 for a quick miss."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    from benchmarks import table

    if options.command == "page":
        print(f"wrote {table.write_page()}")
        return 0
    import torch

    from benchmarks.measure import Setting

    if options.threads < 1:
        parser.error(f"--threads must be at least 1, not {options.threads}")
    unknown = [name for name in options.row or () if name not in table.ROWS]
    if unknown:
        parser.error(f"no row is called {unknown[0]!r}: choose from {', '.join(table.ROWS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU is visible to torch here")
    setting = Setting(options.device, options.threads, quick=options.quick)
    names = options.row or (table.QUICK_ROWS if options.quick else tuple(table.ROWS))
    machine, lines = table.run(names, setting)
    out = options.out
    if out is None and not options.row and not options.quick:
        out = table.RESULTS / f"{table.slug(machine)}.csv"
    if out is not None:
        table.write(out, machine, lines)
        print(f"wrote {out}")
    if options.device == "cpu":
        print("Rows on a GPU: not run here (--device cuda" + ("" if torch.cuda.is_available() else "; no GPU") + ")")
    limit = "limit" if options.quick else "target"
    missed, void = lines[table.missed(lines, limit)], lines[lines["median"].isna()]
    for line in void.itertuples():
        print(f"benchmarks: {line.row}: {line.case}: {line.why}", file=sys.stderr)
    for line in missed.itertuples():
        wanted = table.wanted(line, getattr(line, limit))
        print(f"benchmarks: {line.row}, {line.case}: {line.number} {table.shown(line)}, not {wanted}", file=sys.stderr)
    if (void["case"] != table.SKIPPED).any():
        return 1
    return 3 if options.quick and len(missed) else 0


if __name__ == "__main__":
    run(main)
