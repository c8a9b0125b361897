"""HTML by Jinja2 templates with autoescape on: environment, and the part of the page that shows one table."""

from functools import cache
from typing import Any

import jinja2

from report import formatting


@cache
def environment() -> jinja2.Environment:
    """Templates of report/templates; an undefined name is an error, every value is escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.globals["formatting"] = formatting
    return found


def shown_columns(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The value columns, each with what is worth a column of its own: the rest only where a cell has it."""
    columns = []
    for column in record["value_columns"]:
        found = [row["cells"][column["id"]] for row in record["rows"] if column["id"] in row["cells"]]
        columns.append(
            {
                **column,
                "paper": any(cell["paper"] is not None for cell in found),
                "difference": any(formatting.difference(cell) for cell in found),
                "paper_difference": any(formatting.paper_difference(cell) for cell in found),
            }
        )
    return columns


def fragment(table: str, record: dict[str, Any] | None, scale: str) -> str:
    """One table with badge, setting, claims and notes as an HTML section; without a record it says "not run"."""
    columns = shown_columns(record) if record else []
    template = environment().get_template("table.html.j2")
    return template.render(table=table, record=record, scale=scale, columns=columns)
