"""Memory that training on the CPU gives back and takes again in each step."""

import ctypes

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have this process keep what it freed, for its next step.

    glibc maps each large block anew and gives it back when it is free, so every activation of every step comes from the
    system page by page, filled with zeros. Where the C library is another one nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
