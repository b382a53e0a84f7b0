"""Where a blob's bytes lie: a stretch of a file, valid while that file is not changed."""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitbus_schemas.errors import BlobError

Array = NDArray[Any]

MAP_BYTES: Final = 1 << 20
"""Smaller arrays are read: a mapping costs a file descriptor, of which a process has a thousand."""

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Place:
    """`length` bytes at `offset` of the file at `path`, which had this size and time of change."""

    path: str
    offset: int
    length: int
    size: int
    mtime_ns: int

    @classmethod
    def whole(cls, path: Path) -> Place | None:
        """All of a file; None when there is no such file."""
        found = stamp(path)
        return cls(str(path), 0, found[0], *found) if found else None

    def part(self, offset: int, length: int) -> Place | None:
        """A stretch of this one; None when it does not fit."""
        fits = offset >= 0 and length >= 0 and offset + length <= self.length
        return Place(self.path, self.offset + offset, length, self.size, self.mtime_ns) if fits else None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the file."""
        return (self.offset, self.length) == (0, self.size)

    @property
    def is_valid(self) -> bool:
        """Whether the file is as it was."""
        return stamp(Path(self.path)) == (self.size, self.mtime_ns)

    def sha256(self) -> str:
        """The hash of the bytes. Raises BlobError."""
        digest = hashlib.sha256()
        for begin in range(0, self.length, _CHUNK_BYTES):
            digest.update(self.read(begin, min(_CHUNK_BYTES, self.length - begin)))
        return digest.hexdigest()

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. Raises BlobError for a file that has gone or has shrunk."""
        try:
            with Path(self.path).open("rb") as file:
                file.seek(self.offset + offset)
                data = file.read(length)
        except OSError as error:
            raise BlobError(f"{self.path} cannot be read: {error.strerror}") from error
        if len(data) != length:
            raise BlobError(f"{self.path} ends early: it has been changed")
        return data

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """The bytes as a read-only array, mapped where they are many and aligned. Raises BlobError."""
        needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if needed != self.length:
            raise BlobError(
                f"{self.length} bytes of {self.path} are no {dtype.name} {list(shape)}: that needs {needed}"
            )
        if needed < MAP_BYTES or self.offset % dtype.itemsize:
            return np.frombuffer(self.read(0, needed), dtype).reshape(shape)
        return np.frombuffer(self._map(), dtype, needed // dtype.itemsize, self.offset).reshape(shape)

    def _map(self) -> mmap.mmap:
        try:
            with Path(self.path).open("rb") as file:
                view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise BlobError(f"{self.path} cannot be mapped: {error}") from error
        if len(view) < self.offset + self.length:
            raise BlobError(f"{self.path} ends early: it has been changed")
        return view


def stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of change, in nanoseconds; None when there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
