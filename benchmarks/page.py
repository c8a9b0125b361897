"""docs/performance.md from the committed results, one section a device."""

from pathlib import Path
from typing import Any

from benchmarks import distribution
from benchmarks.recording import RESULTS, markdown
from training.run_directory import read_json, write_text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"

HEAD = """\
<!-- Generated: python -m benchmarks page -->
# Performance

lumix beside the best peers and beside the floor of the machine, measured by `make bench`, which takes about seven
minutes on two cores and writes this page. `python -m benchmarks --help` lists the options; `--quick` is what CI runs.

How it is measured:

- What counts are ratios. All rivals of a line run in one process, in a new random order in each round; the ratio is
  taken within a round, and its median and quartiles over rounds are shown. Absolute times are a footnote.
- Work is equal: the same batch, boxes of one distribution, the same pairing, labels included. A check that lumix makes
  of a peer's draws what the peer makes of them runs first, and a row that fails it has no numbers.
- On the CPU torch has one thread, and CPU time decides: load from elsewhere disturbs it least. Wall times are in the
  JSON beside the Markdown, in `benchmarks/results/`.
- The floor of a mixing row is a copy of the batch into memory that is there: every byte read once and written once.
- Slow rivals have fewer rounds, at least 3. Below a table stands why a target is missed.

The speed column of Table 6 in the report is measured under the same protocol with the models of its scale: two runs
take turns step by step in one process, and the ratio to the baseline is shown. With tiny models on a CPU it says how
much the fixed cost of a method weighs there, and nothing about DeiT-S at 224 pixels: for that see the training steps
below.

To mix as fast as these rows: `CutMix(inplace=True)`, and likewise `Mixup` and `Switch`, write into the batch they are
given, as timm does. By default the caller's batch stays as it is, and its copy is most of the time (column "lumix,
copying"): glibc returns blocks above 32 MB to the kernel and fetches them anew at every step.
"""


def results() -> list[dict[str, Any]]:
    """All committed results, by file name."""
    return [read_json(path) for path in sorted(RESULTS.glob("*.json"))]


def page(records: list[dict[str, Any]]) -> str:
    if not records:
        return HEAD + "\nNothing is measured yet: run `make bench`.\n"
    sections = [markdown(record) for record in records]
    if not any(record["clock"] == "GPU time" for record in records):
        sections.append(
            "## GPU\n\nNot run: no GPU was at hand. `python -m benchmarks --device cuda` runs these rows.\n"
        )
    if distribution.PATH.exists():
        sections.append("\n".join(distribution.lines(read_json(distribution.PATH))))
    return "\n".join([HEAD, *sections]).rstrip("\n") + "\n"


def write_page() -> str:
    """Write the page; its path below the project's folder."""
    write_text(PAGE, page(results()))
    return str(PAGE.relative_to(PAGE.parents[1]))
