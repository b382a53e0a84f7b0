"""A wall clock that jumps, for one process. Monotonic clocks go on, as they do when a machine's time is set.

Our nodes are Python, whose clocks `jumping/sitecustomize.py` replaces; libfaketime, which does it for a C program,
makes Python's `open` fail where the kernel is newer than the library.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

JUMPING = Path(__file__).with_name("jumping")
FAKETIME = ("usr/lib/*/faketime/libfaketime.so.1", "usr/lib*/faketime/libfaketime.so.1")
"""Where Debian's and Fedora's packages put it."""


class Clock:
    """The wall clock of one Python process."""

    def __init__(self, folder: Path, node: str) -> None:
        self._file = folder / f"{node}.clock"
        self.jump(0)

    @property
    def env(self) -> dict[str, str]:
        paths = [str(JUMPING), *(path for path in os.environ.get("PYTHONPATH", "").split(":") if path)]
        return {"PYTHONPATH": ":".join(paths), "CLOCK_AHEAD": str(self._file)}

    def jump(self, seconds: int) -> None:
        """From now on the clock is so far ahead of the machine's."""
        self._write(f"{seconds}")

    def _write(self, text: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(text)
        new.replace(self._file)


class FakeTime(Clock):
    """That of a program in C; it notices a jump within a second. The test is skipped where libfaketime is missing."""

    @property
    def env(self) -> dict[str, str]:
        library = next((path for place in FAKETIME for path in Path("/").glob(place)), None)
        if library is None:
            pytest.skip("the broker's clock cannot jump here: libfaketime is not installed (apt-get install faketime)")
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
        }

    def jump(self, seconds: int) -> None:
        self._write(f"{seconds:+d}s\n")
