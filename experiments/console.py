"""What every command of this project shares: how it ends, also where the reader of its output has had enough."""

import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with the code of `main`; in silence and with 0 where `head`, or whatever reads the output, has gone."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without λ shows a question mark
    try:
        try:
            code = main()
        finally:  # what is left in the buffer meets the closed pipe here, not when Python ends
            sys.stdout.flush()
    except BrokenPipeError:
        if not reader_is_gone():
            raise
        silence, code = os.open(os.devnull, os.O_WRONLY), 0
        for stream in (sys.stdout, sys.stderr):
            os.dup2(silence, stream.fileno())
    sys.exit(code)


def fail(error: Exception, code: int) -> int:
    """Print one sentence and return `code`; a closed pipe behind the output is for `run`."""
    if isinstance(error, BrokenPipeError) and reader_is_gone():
        raise error
    print(f"error: {error}", file=sys.stderr)
    return code


def reader_is_gone() -> bool:
    """Whether nobody reads standard output or error any more; other pipes may break too, as those to a worker."""
    return any(_is_broken(stream) for stream in (sys.stdout, sys.stderr))


def _is_broken(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), 0)  # errors are told without being asked for
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
