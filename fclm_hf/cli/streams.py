"""Images from standard input and to standard output."""

import os
import sys

import click


def read_standard_input() -> bytes:
    """Return all of standard input."""
    return click.get_binary_stream("stdin").read()


def write_standard_output(data: bytes | memoryview) -> None:
    """Write to standard output.

    Raises:
        BrokenPipeError: If nobody reads it to the end.
    """
    stream = click.get_binary_stream("stdout")
    try:
        stream.write(data)
        stream.flush()
    except BrokenPipeError:
        # the interpreter flushes the rest when it exits, and would complain a second time
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
