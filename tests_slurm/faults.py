"""What was injected into the cluster, what was seen and how long recovery took: recorded by the tests, shown in docs.

`python tests_slurm/faults.py` puts the table of the last `make test-slurm` into docs/slurm.md, between the markers
`<!-- faults -->` and `<!-- /faults -->`.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
RECORD = PROJECT / "build" / "slurm" / "faults.json"
PAGE = PROJECT / "docs" / "slurm.md"
COLUMNS = {"fault": "Injected", "seen": "Seen", "seconds": "Recovery, s", "weights": "Weights"}
MARKERS = re.compile(r"(<!-- faults -->\n).*?(<!-- /faults -->)", re.DOTALL)


def render(record: dict[str, Any]) -> str:
    """The Markdown table with a sentence on the machine below it."""
    rows = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    for fault in record["faults"]:
        values = dict(fault)
        values["seconds"] = "none needed" if fault["seconds"] is None else f"{fault['seconds']:.0f}"
        rows.append([str(values[name]) for name in COLUMNS])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n\n" + record["machine"] + "\n"


def main() -> int:
    if not RECORD.exists():
        print(f"{RECORD.relative_to(PROJECT)} is missing: run make test-slurm first", file=sys.stderr)
        return 1
    text = PAGE.read_text() if PAGE.exists() else ""
    table = render(json.loads(RECORD.read_text()))
    changed, count = MARKERS.subn(lambda match: match[1] + table + match[2], text)
    if not count:
        print(table)
        print(f"{PAGE.relative_to(PROJECT)} has no <!-- faults --> markers, so nothing was written", file=sys.stderr)
        return 1
    PAGE.write_text(changed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
