"""Memory that a process keeps."""

import ctypes
import sys


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for what it allocates next.

    glibc returns large blocks to the system at once, which clears each page of the next one. A training step on a CPU
    allocates the same blocks again and again: it takes a tenth less time without. The process then holds the most that
    it has ever used.

    Returns:
        Whether the C library can do so; others than glibc are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(name, value) for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, LARGEST_INT)))


__all__ = ["keep_freed_memory"]
