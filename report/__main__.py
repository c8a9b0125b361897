"""python -m report tables | page: results/<scale>/ to report/tables/ and report/index.html."""

import argparse
from pathlib import Path

from experiments.console import fail, run

FAILURE = 1


def main(arguments: list[str] | None = None, root: Path = Path()) -> int:
    """Exit code 0, or 1 after one sentence about what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m report", description="Render results/<scale>/ and measured/<scale>/."
    )
    parser.add_argument("what", choices=("tables", "page"), help="report/tables/<scale>/ or report/index.html")
    what = parser.parse_args(arguments).what

    # Imported late: pandas and jinja2 cost a second, and --help needs neither.
    from report.load import all_results
    from report.page import render
    from report.tables import write, write_tables

    folder = root / "report"
    try:
        if what == "tables":
            (folder / "tables").mkdir(parents=True, exist_ok=True)
            count = sum(len(write_tables(results, folder / "tables")) for results in all_results(root))
            print(f"{count} files in {folder / 'tables'}")
        else:
            write(folder / "index.html", render(root))
            print(f"report: {folder / 'index.html'}")
    except (OSError, ValueError) as error:
        return fail(error, FAILURE)
    except (LookupError, TypeError, AttributeError) as error:
        what = f"results or measured hold what is no result ({type(error).__name__}: {error})"
        return fail(ValueError(f"{what}: restore them with git checkout results measured"), FAILURE)
    return 0


if __name__ == "__main__":
    run(main)
