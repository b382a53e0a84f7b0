"""The content-addressed store of blobs: weights, graphs, slice manifests and model files, named by their SHA-256.

    <folder>/ab/cdef...        a blob's bytes
    <folder>/ab/cdef....ref    where a blob's bytes lie inside another file (JSON), so that weights are kept once
    <folder>/ab/cdef....part   a download under way
    <folder>/seen/...          hashes of files by path, so that an unchanged file is read once

Every file appears by a rename, so several processes may share a folder, and a crash leaves nothing half written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, Final

import numpy as np
from numpy.typing import DTypeLike

from splitbus_runtime.places import Array, Place, stamp
from splitbus_schemas.errors import BlobError, NoRoomError
from splitbus_schemas.ids import is_sha256, sha256
from splitbus_schemas.messages import WeightRef

STALE_SECONDS: Final = 7 * 24 * 3600
"""A download or a temporary file that nobody continued for a week is removed."""

log = logging.getLogger(__name__)

_COPY_BYTES = 1 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class BlobStore:
    """Blobs by hash under `folder`; with `limit_bytes`, the least recently used unpinned ones give way.

    Bytes that lie inside other files (`remember_file`) count for nothing and are never removed.
    All methods may be called from several threads, and raise BlobError naming the blob or the folder.
    """

    def __init__(self, folder: Path, *, limit_bytes: int | None = None) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._lock = threading.RLock()
        self._pinned: set[str] = set()
        self._sound: dict[str, Place] = {}
        self._arrays: weakref.WeakValueDictionary[tuple[str, str, tuple[int, ...]], Array] = (
            weakref.WeakValueDictionary()
        )
        with self._writing("the folder"):
            folder.mkdir(parents=True, exist_ok=True)
        self._remove_stale()
        self._total = sum(stat.st_size for _, stat in self._blobs())

    # What is there

    def has(self, sha: str) -> bool:
        """Whether the blob can be read."""
        return self._blob(sha).is_file() or _place(_read_json(self._ref(sha))) is not None

    def check(self, sha: str) -> bool:
        """Whether the blob is here and matches its name; a damaged one is forgotten. A file is read once."""
        if not self.has(sha):
            return False
        place = self._locate(sha)
        if self._sound.get(sha) != place:
            if place.sha256() != sha:
                log.warning("blob %s in %s was damaged and is forgotten: it must be fetched again", sha, place.path)
                self.discard(sha)
                return False
            self._sound[sha] = place
        return True

    def size(self, sha: str) -> int:
        """The blob's length in bytes."""
        return self._locate(sha).length

    def path(self, sha: str) -> Path:
        """The file that is the blob. BlobError also for a blob that lies inside another file."""
        place = self._locate(sha)
        if not place.is_whole:
            raise BlobError(f"blob {sha} lies inside {place.path}: read it with read or array")
        return Path(place.path)

    @property
    def total_bytes(self) -> int:
        """What the blobs take on disk, downloads under way left out."""
        return self._total

    # Putting

    def put(self, data: bytes | memoryview) -> str:
        """Keep `data`; gives its hash."""
        sha = sha256(data)
        if not self.has(sha):
            with self._new_file(f"blob {sha} of {len(data)} bytes") as file:
                file.write(data)
                self._adopt(file, sha)
        return sha

    def put_file(self, path: Path) -> str:
        """Keep a copy of a file's bytes; gives their hash."""
        digest = hashlib.sha256()
        with self._new_file(f"a copy of {path}") as file:
            try:
                with path.open("rb") as source:
                    while chunk := source.read(_COPY_BYTES):
                        digest.update(chunk)
                        file.write(chunk)
            except OSError as error:
                if error.errno in _NO_SPACE:
                    raise
                raise BlobError(f"{path} cannot be read: {error.strerror}") from error
            self._adopt(file, digest.hexdigest())
        return digest.hexdigest()

    def remember_file(self, sha: str, path: Path, offset: int = 0, length: int | None = None) -> None:
        """Blob `sha` is the `length` bytes (all when None) at `offset` of `path`, until that file changes.

        The caller knows that the bytes match the hash.
        """
        file = Place.whole(path.resolve())
        place = file.part(offset, file.length - offset if length is None else length) if file else None
        if place is None:
            raise BlobError(f"blob {sha} cannot lie at {offset} of {path}: the file is not there or too short")
        self._write_json(self._ref(sha), asdict(place))

    def file_hash(self, path: Path) -> str:
        """The hash of a file, remembered as long as size and time of change stay; the file is then a blob."""
        path = path.resolve()
        seen = self.folder / "seen" / f"{sha256(str(path).encode())}.json"
        known = _read_json(seen)
        place = _place(known.get("place"))
        sha = str(known.get("sha256", ""))
        if place is None or not is_sha256(sha):
            place = Place.whole(path)
            if place is None:
                raise BlobError(f"{path} cannot be read: there is no such file")
            sha = place.sha256()
            self._write_json(seen, {"sha256": sha, "place": asdict(place)})
        if not self.has(sha):
            self._write_json(self._ref(sha), asdict(place))
        return sha

    # Downloads

    def partial(self, sha: str) -> int:
        """How many bytes of a download are there; the next ones belong at this offset."""
        found = stamp(self._part(sha))
        return found[0] if found else 0

    def append(self, sha: str, data: bytes | memoryview, at: int | None = None) -> int:
        """Write a piece of a download at offset `at` (the end when None); gives the new `partial`.

        BlobError for a piece that would leave a gap.
        """
        if self.has(sha):
            return self.size(sha)
        have = self.partial(sha)
        begin = have if at is None else at
        if begin > have:
            if self.has(sha):  # another process finished it just now
                return self.size(sha)
            raise BlobError(f"download of blob {sha} is at {have}, a piece for {begin} would leave a gap")
        part = self._part(sha)
        with self._writing(f"a piece of blob {sha}"):
            part.parent.mkdir(exist_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.lseek(descriptor, begin, os.SEEK_SET)
                _write_all(descriptor, data)
            finally:
                os.close(descriptor)
        return max(have, begin + len(data))

    def finish(self, sha: str) -> None:
        """A download is complete: check its hash and keep it. BlobError, and the bytes removed, when it is another."""
        part = self._part(sha)
        try:
            with part.open("r+b") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            if found == sha:
                self._keep(part, sha)
        except (OSError, BlobError) as error:
            if self.has(sha):  # another process finished it just now
                return
            raise BlobError(f"download of blob {sha} cannot be read: {error}") from error
        if found != sha:
            part.unlink(missing_ok=True)
            raise BlobError(f"blob {sha} arrived with hash {found}: it was removed and must be fetched again")

    # Reading

    def read(self, sha: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a blob from `offset`: `length` of them, fewer at the end, all when None."""
        place = self._locate(sha)
        begin = min(max(offset, 0), place.length)
        rest = place.length - begin
        return place.read(begin, rest if length is None else min(length, rest))

    def array(self, sha: str, dtype: DTypeLike, shape: Iterable[int]) -> Array:
        """A blob as a read-only array; large ones are mapped from disk, and all users share one."""
        kind = np.dtype(dtype)
        key = (sha, kind.name, tuple(shape))
        with self._lock:
            array = self._arrays.get(key)
            if array is None:
                array = self._arrays[key] = self._locate(sha).array(kind, key[2])
        return array

    def holds(self, weight: WeightRef) -> bool:
        """Whether a weight can be had without a download: as a blob, or from a model file that is here."""
        return self.has(weight.sha256) or self._in_model_file(weight) is not None

    def weight(self, weight: WeightRef) -> Array:
        """A weight as a read-only array, from its blob or from the model file that holds it."""
        if not self.has(weight.sha256):
            place = self._in_model_file(weight)
            if place is not None and place.sha256() == weight.sha256:
                self._write_json(self._ref(weight.sha256), asdict(place))
        return self.array(weight.sha256, weight.dtype, weight.shape)

    def _in_model_file(self, weight: WeightRef) -> Place | None:
        if weight.file is None or weight.offset is None or not self.has(weight.file):
            return None
        return self._locate(weight.file).part(weight.offset, weight.bytes)

    # Room

    def pin(self, shas: Iterable[str]) -> None:
        """Keep exactly these, whatever the limit; replaces the pins so far. Only this process knows them."""
        with self._lock:
            self._pinned = set(shas)

    def discard(self, sha: str) -> None:
        """Forget a blob, and a download of it: it was found damaged, or nobody needs it."""
        with self._lock:
            path = self._blob(sha)
            with contextlib.suppress(FileNotFoundError):
                self._total -= path.stat().st_size
                path.unlink()
            self._ref(sha).unlink(missing_ok=True)
            self._part(sha).unlink(missing_ok=True)
            for key in [known for known in self._arrays if known[0] == sha]:
                del self._arrays[key]

    def evict(self, limit_bytes: int) -> int:
        """Remove the least recently used unpinned blobs until `limit_bytes` are left; gives the bytes removed."""
        with self._lock:
            blobs = sorted(self._blobs(), key=lambda entry: entry[1].st_atime_ns)
            self._total = sum(stat.st_size for _, stat in blobs)
            before = self._total
            for path, stat in blobs:
                if self._total <= limit_bytes:
                    break
                if path.parent.name + path.name not in self._pinned:
                    path.unlink(missing_ok=True)
                    self._total -= stat.st_size
            return before - self._total

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes more could be written now; nothing is left of them."""
        try:
            with self._new_file("a look for room") as file:
                _reserve(file, size)
        except NoRoomError:
            return False
        return True

    # Inside

    def _blob(self, sha: str) -> Path:
        if not is_sha256(sha):
            raise BlobError(f"{sha[:80]!r} names no blob: a name is a SHA-256 in lower-case hexadecimal")
        return self.folder / sha[:2] / sha[2:]

    def _ref(self, sha: str) -> Path:
        return self._blob(sha).with_suffix(".ref")

    def _part(self, sha: str) -> Path:
        return self._blob(sha).with_suffix(".part")

    def _locate(self, sha: str) -> Place:
        place = Place.whole(self._blob(sha))
        if place is not None:
            with contextlib.suppress(OSError):  # a store that may only be read is read all the same
                os.utime(place.path, ns=(time.time_ns(), place.mtime_ns))
            return place
        place = _place(_read_json(self._ref(sha)))
        if place is None:
            raise BlobError(f"blob {sha} is not in {self.folder}: it must be fetched")
        return place

    def _blobs(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("??/*"):
            if not path.suffix:
                with contextlib.suppress(FileNotFoundError):
                    yield path, path.stat()

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            remedy = "free some space, or lower the store's limit" if error.errno in _NO_SPACE else "check the folder"
            kind = NoRoomError if error.errno in _NO_SPACE else BlobError
            raise kind(f"{what} cannot be written to {self.folder}: {reason}; {remedy}") from error

    @contextlib.contextmanager
    def _new_file(self, what: str) -> Iterator[IO[bytes]]:
        """A temporary file that is gone afterwards unless it was adopted."""
        with self._writing(what):
            file = NamedTemporaryFile(dir=self.folder, suffix=".tmp", delete=False)  # noqa: SIM115 - closed below, and renamed before
            try:
                with file:
                    yield file
            finally:
                Path(file.name).unlink(missing_ok=True)

    def _adopt(self, file: IO[bytes], sha: str) -> None:
        file.flush()
        os.fsync(file.fileno())  # a power cut must not leave an empty file under a blob's name
        self._keep(Path(file.name), sha)

    def _keep(self, path: Path, sha: str) -> None:
        with self._writing(f"blob {sha}"), self._lock:
            target = self._blob(sha)
            target.parent.mkdir(exist_ok=True)
            known = target.is_file()
            size = path.stat().st_size
            path.chmod(0o644)
            path.replace(target)
            self._total += 0 if known else size
        if self.limit_bytes is not None and self._total > self.limit_bytes:
            self._make_room(self.limit_bytes, sha)

    def _make_room(self, limit: int, newest: str) -> None:
        with self._lock:
            pinned = self._pinned
            self._pinned = pinned | {newest}
            self.evict(limit)
            self._pinned = pinned

    def _write_json(self, path: Path, value: Any) -> None:
        with self._new_file(path.name) as file:
            path.parent.mkdir(exist_ok=True)
            file.write(json.dumps(value).encode())
            file.flush()
            Path(file.name).replace(path)

    def _remove_stale(self) -> None:
        old = time.time() - STALE_SECONDS
        for path in (*self.folder.glob("*.tmp"), *self.folder.glob("??/*.part")):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < old:
                    path.unlink()


def _reserve(file: IO[bytes], size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.write(bytes(size))


def _read_json(path: Path) -> Any:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _place(value: Any) -> Place | None:
    """The place that was written down, when its file is still the same."""
    try:
        place = Place(**value)
    except TypeError:
        return None
    return place if place.is_valid else None


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
