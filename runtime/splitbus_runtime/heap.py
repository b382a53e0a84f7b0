"""What a daemon holds for good is not looked through again, and what it has freed goes back to the machine."""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Callable


def settle() -> None:
    """Take all that is there now for lasting: a worker's 46,000 objects cost the collector 25 ms, and all waits."""
    gc.collect()
    gc.freeze()


def trim() -> bool:
    """Give the pages of freed memory back; False where the C library cannot. Milliseconds: not while a frame waits.

    glibc keeps what lies between the things that still live, for as long as they live.
    """
    give_back = _malloc_trim()
    return give_back is not None and bool(give_back(0))


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """malloc_trim(3) of glibc; other C libraries have none, or need none."""
    try:
        give_back = ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
    give_back.argtypes, give_back.restype = (ctypes.c_size_t,), ctypes.c_int
    return lambda pad: int(give_back(pad))
