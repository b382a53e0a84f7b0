"""The journal on disk: numbered segments in a folder, appended to, compacted from the oldest on, never above a limit.

<folder>/00000007.journal   a segment: records one behind the other (journal.py)
<folder>/lock               held by the session that uses the folder
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from splitbus_device.journal import Bytes, Kind, Record, Spot, read_record, record_bytes, scan, write_record
from splitbus_device.ledger import Ledger
from splitbus_schemas.errors import ConfigError, JournalError

Fsync: TypeAlias = Literal["always", "interval", "never"]

SEGMENTS: Final = 8
"""The limit is shared by so many segments: one is free for compaction, and rotation wastes at most one more."""

LIVE_SHARE: Final = 5 / 8
"""Of the limit, for records that are needed: with less waste than this, compaction would copy for ever."""

MARK_SHARE: Final = 1 / 8
"""Of the limit, for the keys of frames that are done."""

WASTE_SHARE: Final = 1 / 8
"""A segment of which less is needed is worth copying at once."""

MAX_FRAMES: Final = 20_000
"""Of each frame that is kept a kilobyte is in memory."""

_NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Journal:
    """Records of frames, by key, in `ledger`. All methods may be called from several threads.

    limit_bytes: the folder never holds more; what no longer fits is given up, oldest first, and told to `evicted`.
    What a sync in the background could not do is told to `unsynced`.
    fsync: "always" before `append` returns, "interval" every `interval_s`, "never" as the kernel likes. Whatever it is,
    what was appended survives the end of the process. Raises ConfigError for a folder in use, JournalError otherwise.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int,
        fsync: Fsync = "interval",
        interval_s: float = 1.0,
        evicted: Callable[[str], None] = lambda _key: None,
        unsynced: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self.folder = folder
        self.damaged_bytes = 0
        """That were no records when the journal was opened: torn by a power cut, or decayed."""
        self.segment_bytes = limit_bytes // SEGMENTS
        """No record can be longer."""
        self.ledger = Ledger(int(limit_bytes * MARK_SHARE))
        self._limit = limit_bytes
        self._fsync = fsync
        self._evicted = evicted
        self._unsynced = unsynced
        self._lock = threading.RLock()
        self._sync_lock = threading.Lock()
        self._sizes: dict[int, int] = {}
        """Of every segment; the last one is appended to."""
        self._written = self._synced = 0
        self._closing = threading.Event()
        with _writing(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = _hold(folder)
            try:
                self._file = self._open()
            except BaseException:
                os.close(self._lock_file)
                raise
        self._thread: threading.Thread | None = None
        if fsync == "interval":
            self._thread = threading.Thread(
                target=self._sync_loop, args=(interval_s,), name=f"splitbus-journal-{folder.name}", daemon=True
            )
            self._thread.start()

    @property
    def total_bytes(self) -> int:
        """What the segments take on disk."""
        return sum(self._sizes.values())

    def append(
        self, kind: Kind, key: str, number: int | None = None, facts: bytes = b"", body: Sequence[Bytes] = ()
    ) -> int:
        """Write a record; a new frame gets the next number. Gives the number."""
        with self._lock, _writing(self.folder):
            if self._closing.is_set():
                raise JournalError(f"the journal in {self.folder} is closed: open a new session for durable frames")
            if number is None:
                number = self.ledger.last_number + 1
            size = record_bytes(key, facts, body)
            if size > self.segment_bytes:
                raise JournalError(
                    f"frame {key!r} needs {size} bytes in the journal, which takes {self.segment_bytes} at most: "
                    f"set limit_mb to {-(-size * SEGMENTS >> 20)} or more"
                )
            if kind not in (Kind.APPLIED, Kind.FORGOTTEN):
                self._give_up(size, frames=key not in self.ledger.entries)
            self._make_room(size)
            self._write(kind, key, number, facts, body)
            written = self._written
        if self._fsync == "always":
            self._sync(written)
        return number

    def read(self, spot: Spot) -> Record | None:
        """The record there; None when it was damaged since."""
        try:
            with self._path(spot.segment).open("rb") as file:
                file.seek(spot.offset)
                found = read_record(spot.segment, spot.offset, file.read(spot.length))
        except OSError:
            return None
        return found[0] if found is not None else None

    def records(self, key: str) -> tuple[int | None, dict[Kind, Record | None]]:
        """A frame's number and what is kept of it; None for a record that was damaged since."""
        with self._lock:
            entry = self.ledger.entries.get(key)
            if entry is None:
                return None, {}
            return entry.number, {kind: self.read(spot) for kind, spot in entry.spots.items()}

    def close(self) -> None:
        """Sync, unless never, and let go of the folder."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._fsync != "never":
                with contextlib.suppress(OSError):
                    os.fdatasync(self._file)
            os.close(self._file)
            os.close(self._lock_file)

    # Opening

    def _open(self) -> int:
        segments = sorted(int(path.stem) for path in self.folder.glob("*.journal") if path.stem.isdecimal())
        sound_end = 0
        for segment in segments:
            data = self._path(segment).read_bytes()
            self._sizes[segment], sound_end = len(data), 0
            for found in scan(segment, data):
                if found.record is None:
                    self.damaged_bytes += found.spot.length
                else:
                    self.ledger.note(found.record, found.spot)
                    sound_end = found.spot.offset + found.spot.length
        self.ledger.sort()
        self.ledger.trim()
        if not segments:
            return self._begin(1)
        last = segments[-1]
        file = os.open(self._path(last), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.ftruncate(file, sound_end)  # the torn tail, if there is one
        self._sizes[last] = sound_end
        return file

    def _begin(self, segment: int) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        file = os.open(self._path(segment), flags, 0o600)
        try:
            if self._fsync != "never":
                _sync_folder(self.folder)
        except OSError:
            os.close(file)
            raise
        self._sizes[segment] = 0
        return file

    def _path(self, segment: int) -> Path:
        return self.folder / f"{segment:08}.journal"

    @property
    def _current(self) -> int:
        return next(reversed(self._sizes))

    # Writing, under the lock

    def _write(self, kind: Kind, key: str, number: int, facts: bytes = b"", body: Sequence[Bytes] = ()) -> None:
        size = record_bytes(key, facts, body)
        if self._sizes[self._current] + size > self.segment_bytes:
            self._rotate()
        segment = self._current
        offset = self._sizes[segment]
        pieces = write_record(segment, offset, kind, key, number, facts, body)
        try:
            _write_all(self._file, pieces)
        except OSError:
            self._take_back(segment, offset)
            raise
        self._sizes[segment] = offset + size
        self._written += 1
        self.ledger.note(Record(kind, key, number), Spot(segment, offset, size))
        if kind is Kind.APPLIED:
            self.ledger.trim()

    def _take_back(self, segment: int, offset: int) -> None:
        """What was written of a record that did not fit; where that fails too, the next scan leaps over it."""
        try:
            os.ftruncate(self._file, offset)
        except OSError:
            self._sizes[segment] = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        segment = self._current + 1
        old = self._file
        if self._fsync != "never":
            os.fdatasync(old)
        self._file = self._begin(segment)
        os.close(old)

    # Room, under the lock

    def _give_up(self, size: int, *, frames: int) -> None:
        """Forget frames, oldest first, until so many more bytes and frames fit."""
        while (
            self.ledger.live_bytes + size > self._limit * LIVE_SHARE or len(self.ledger.entries) + frames > MAX_FRAMES
        ) and (key := self.ledger.oldest()) is not None:
            self._write(Kind.FORGOTTEN, key, self.ledger.entries[key].number)
            self._evicted(key)

    def _make_room(self, size: int) -> None:
        """Compact, until there is room for one record more and nothing is wasted."""
        for oldest in list(self._sizes):
            crowded = self.total_bytes + size > self._limit - self.segment_bytes
            if not crowded and not (oldest < self._current - 1 and self._is_waste(oldest)):
                return
            self._reclaim(oldest)

    def _is_waste(self, segment: int) -> bool:
        """Whether little of a segment is needed: a journal without a backlog stays far below its limit."""
        return self.ledger.live[segment] < self._sizes[segment] * WASTE_SHARE

    def _reclaim(self, segment: int) -> None:
        """Copy what is needed of the oldest segment to the end, and remove it."""
        if segment == self._current:
            self._rotate()
        copied = False
        for spot in self.ledger.states_in(segment):
            record = self.read(spot)
            if record is not None:
                self._write(record.kind, record.key, record.number, record.facts, (record.body,))
                copied = True
        for key, number in self.ledger.marks_in(segment):
            self._write(Kind.APPLIED, key, number)
            copied = True
        if copied and self._fsync != "never":
            os.fdatasync(self._file)
        self._path(segment).unlink()
        del self._sizes[segment]
        self.ledger.lost_segment(segment)

    # Syncing

    def _sync(self, written: int) -> None:
        """Bring the first `written` records to the disk; threads that come together share one call."""
        with self._sync_lock, _writing(self.folder):
            if self._synced >= written:
                return
            with self._lock:
                file, upto = os.dup(self._file), self._written  # earlier segments were synced when they were left
            try:
                os.fdatasync(file)
            finally:
                os.close(file)
            self._synced = upto

    def _sync_loop(self, interval_s: float) -> None:
        while not self._closing.wait(interval_s):
            try:
                self._sync(self._written)
            except JournalError as error:
                self._unsynced(str(error))


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "free some space, or lower limit_mb" if error.errno in _NO_SPACE else "check the folder"
        raise JournalError(f"the journal in {folder} cannot be written: {error.strerror or error}; {remedy}") from error


def _hold(folder: Path) -> int:
    """Take the folder for this session; the kernel gives it back however the process ends. Raises ConfigError."""
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
            raise
        raise ConfigError(f"{folder} is in use by another session: give each its own folder as durable") from None
    return file


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, pieces: Sequence[Bytes]) -> None:
    rest = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    while rest:
        written = os.writev(file, rest)
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if rest:
            rest[0] = rest[0][written:]
