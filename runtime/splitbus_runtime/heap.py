"""Freed memory goes back to the machine: glibc keeps it between what still lives, for as long as that lives."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def trim() -> bool:
    """Give the pages of freed memory back; False where the C library cannot. Milliseconds: not while a frame waits."""
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
