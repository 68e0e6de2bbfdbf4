"""Images from standard input and to standard output."""

import os
import sys


def read_standard_input() -> bytes:
    """Return all of standard input."""
    return sys.stdin.buffer.read()


def write_standard_output(data: bytes | memoryview) -> None:
    """Write to standard output.

    Raises:
        BrokenPipeError: If nobody reads it to the end.
    """
    stream = sys.stdout.buffer
    try:
        stream.write(data)
        stream.flush()
    except BrokenPipeError:
        # the interpreter flushes the rest when it exits, and would complain a second time
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
