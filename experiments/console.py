"""How every command of this project ends."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with the code of `main`; in silence where `head`, or whatever reads the output, has gone."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without λ shows a question mark
    try:
        code = main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def fail(error: Exception, code: int) -> int:
    """Print one sentence and return `code`."""
    print(f"error: {error}", file=sys.stderr)
    return code
