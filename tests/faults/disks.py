"""Small disks of their own, which a test can fill: a tmpfs, mounted where root may."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

BALLAST = "ballast"
PIECE = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted file system."""

    folder: Path

    def fill(self, leave: int = 0) -> None:
        """Write until nothing fits any more, then free `leave` bytes."""
        with (self.folder / BALLAST).open("ab", buffering=0) as file:
            for size in (PIECE, 512, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
            if leave:
                file.truncate(max(0, file.tell() - leave))

    def free(self) -> None:
        """Give the room back, if it was taken."""
        (self.folder / BALLAST).unlink(missing_ok=True)

    @property
    def left(self) -> int:
        """Free bytes."""
        stat = os.statvfs(self.folder)
        return stat.f_bavail * stat.f_frsize


@contextlib.contextmanager
def disk(folder: Path, size_mb: int) -> Iterator[Disk]:
    """A disk of that size at `folder`; the test is skipped, and says why, where none can be mounted."""
    objection = why_not()
    if objection:
        pytest.skip(objection)
    folder.mkdir(parents=True, exist_ok=True)
    _mount(folder, size_mb)
    try:
        yield Disk(folder)
    finally:
        _libc.umount2(str(folder).encode(), 2)  # lazily: a process that is being killed may still hold it


@lru_cache(maxsize=1)
def why_not() -> str:
    """Why this machine can mount no small disk; "" when it can."""
    probe = Path(f"/tmp/splitbus-disk-{os.getpid()}")  # noqa: S108 - a folder of our own, for a moment
    probe.mkdir()
    try:
        _mount(probe, 1)
        _libc.umount2(str(probe).encode(), 2)
    except OSError as error:
        return f"no full disk here: a tmpfs cannot be mounted ({error.strerror}); run the tests as root"
    finally:
        probe.rmdir()
    return ""


def _mount(folder: Path, size_mb: int) -> None:
    done = _libc.mount(b"splitbus-test", str(folder).encode(), b"tmpfs", 0, f"size={size_mb}m".encode())
    if done:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number) if number else errno.errorcode.get(number, "mount failed"))
