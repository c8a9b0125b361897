"""Each table as CSV (one line per cell, every digit), Markdown and LaTeX (one line per row) and an HTML fragment."""

from pathlib import Path
from typing import Any

import pandas as pd

from report import formatting
from report.formatting import DASH, MINUS
from report.html import fragment
from report.load import Results, cells
from training.run_directory import write_text

LATEX_SYMBOLS = {
    MINUS: "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "λ": r"$\lambda$",
    "η": r"$\eta$",
    "ξ": r"$\xi$",
    DASH: "--",
}
LATEX_SYMBOLS |= {"α": r"$\alpha$", "σ": r"$\sigma$", "₀": "$_0$", "ᵣ": "$_r$", "ₛ": "$_s$"}


def long_frame(record: dict[str, Any]) -> pd.DataFrame:
    """One line per cell with all numbers unrounded; what does not exist is empty."""
    lines = []
    for row, column, cell in cells(record):
        gap = cell.get("difference") or {}
        line = {"table": record["table"], "scale": record["scale"], "row": row["id"], "column": column["id"]}
        line |= {label["id"]: row["labels"].get(label["id"], "") for label in record["label_columns"]}
        line |= {"ours_only": row["ours"], "status": cell["status"], "reason": cell.get("reason", "")}
        line |= {name: cell.get(name) for name in ("paper", "mean", "std", "n", "n_samples", "run", "older_code")}
        line |= {"difference_to": " / ".join(str(part) for part in gap.get("to") or [])}
        line |= {f"difference_{name}": gap.get(name) for name in ("mean", "low", "high", "n", "paper")}
        lines.append(line)
    whole = {"n": "Int64", "n_samples": "Int64", "difference_n": "Int64"}  # integers even where some are missing
    return pd.DataFrame(lines).astype(whole)


def wide_frame(record: dict[str, Any]) -> pd.DataFrame:
    """One line per row as people read it: the paper's columns under their own heading, beside ours."""
    ours, paper = f"ours ({record['scale']}, mean ± std)", formatting.paper_heading(record)
    lines = []
    for row in record["rows"]:
        line = {label["title"]: row["labels"].get(label["id"]) or DASH for label in record["label_columns"]}
        for column in record["value_columns"]:
            cell = row["cells"].get(column["id"])
            prefix = f"{column['title']}, " if len(record["value_columns"]) > 1 else ""
            line[f"{prefix}{ours}"] = formatting.measured(cell) if cell else ""
            line[f"{prefix}{paper}"] = formatting.paper(cell) if cell else ""
            line[f"{prefix}our difference [95 %]"] = formatting.difference(cell) if cell else ""
            line[f"{prefix}paper's difference"] = formatting.paper_difference(cell) if cell else ""
        line["row of"] = "ours" if row["ours"] else "paper"
        line["note"] = row["note"]
        lines.append(line)
    frame = pd.DataFrame(lines)
    optional = [name for name in frame.columns if "difference" in name or paper in name or name == "note"]
    kept = [name for name in frame.columns if name not in optional or not frame[name].isin(["", DASH]).all()]
    return frame[kept]


def markdown(record: dict[str, Any]) -> str:
    """Heading, badge and setting above a GitHub table."""
    table = (
        wide_frame(record)
        .map(lambda text: str(text).replace("|", "\\|"))
        .to_markdown(index=False, disable_numparse=True)
    )
    head = f"# {formatting.heading(record)}\n\n**{formatting.badge(record['scale'], record)}**\n\n{record['setting']}\n"
    return f"{head}\n{table}\n"


def latex(record: dict[str, Any]) -> str:
    """A table environment for booktabs whose caption names scale and data; symbols as mathematics."""
    frame = wide_frame(record)
    caption = f"{formatting.heading(record)}. {formatting.badge(record['scale'], record)}. {record['setting']}"
    words = {"\\": r"\textbackslash ", "~": r"\textasciitilde ", "^": r"\textasciicircum "}
    for character in ("\\", "&", "%", "$", "#", "_", "{", "}", "~", "^"):
        caption = caption.replace(character, words.get(character, f"\\{character}"))
    text = frame.to_latex(index=False, escape=True, caption=caption, label=f"tab:{record['scale']}:{record['table']}")
    for symbol, command in LATEX_SYMBOLS.items():
        text = text.replace(symbol, command)
    return str(text)


def write_tables(results: Results, folder: Path) -> list[Path]:
    """Four files per table that has results, in <folder>/<scale>/; returns their paths."""
    written = []
    for table, record in results.records.items():
        texts = {
            "csv": long_frame(record).to_csv(index=False, lineterminator="\n"),
            "md": markdown(record),
            "tex": latex(record),
            "html": fragment(table, record, results.scale),
        }
        for suffix, text in texts.items():
            path = folder / results.scale / f"{table}.{suffix}"
            write_text(path, text)
            written.append(path)
    return written
