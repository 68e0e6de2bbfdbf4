"""Limits on the memory and the time of what hostile files make a process do."""

import resource
from pathlib import Path


SECONDS, MEMORY = 5, 1024**3


def find_memory() -> int:
    """Return the bytes of address space that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def find_time() -> float:
    """Return the seconds that this process has computed, without those of the system, which is slow when it is busy."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def find_peak() -> int:
    """Return the bytes of resident memory that this process used at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory(more: int) -> None:
    """Let this process allocate at most so many bytes of address space more."""
    resource.setrlimit(resource.RLIMIT_AS, (find_memory() + more, resource.RLIM_INFINITY))


def stop(*args: object) -> None:
    """Handle the alarm."""
    raise TimeoutError(f"it takes more than {SECONDS} s")
