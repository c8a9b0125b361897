"""python -m report tables | page | readme: results/<scale>/ to report/tables/, the pages, and what README.md shows."""

import argparse
import shutil
from pathlib import Path

from experiments.console import fail, run

FAILURE = 1


def main(arguments: list[str] | None = None, root: Path = Path()) -> int:
    """Exit code 0, or 1 after one sentence about what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m report", description="Render results/<scale>/ and measured/<scale>/."
    )
    parser.add_argument(
        "what",
        choices=("tables", "page", "readme"),
        help="report/tables/<scale>/, report/index.html and its pages, or what README.md says was found",
    )
    what = parser.parse_args(arguments).what

    # Imported late: pandas and jinja2 cost a second, and --help needs neither.
    from report import findings, page
    from report.load import all_results
    from report.tables import write_tables
    from training.run_directory import RunError, write_text

    folder = root / "report"
    try:
        if what == "tables":
            (folder / "tables").mkdir(parents=True, exist_ok=True)
            written = [write_tables(results, folder / "tables") for results in all_results(root, measured=True)]
            print(f"{sum(map(len, written))} files in {folder / 'tables'}")
        elif what == "page":
            for file, text in page.render(root).items():
                write_text(folder / file, text)
            print(f"report: {folder / 'index.html'}")
        else:
            write_text(root / "README.md", findings.renewed((root / "README.md").read_text(encoding="utf-8"), root))
            shutil.copy(folder / "figures" / findings.PICTURE, root / "docs" / findings.PICTURE)
    except (RunError, OSError, ValueError) as error:
        return fail(error, FAILURE)
    except (LookupError, TypeError, AttributeError) as error:
        what = f"results or measured hold what is no result ({type(error).__name__}: {error})"
        return fail(ValueError(f"{what}: restore them with git checkout results measured"), FAILURE)
    return 0


if __name__ == "__main__":
    run(main)
