"""What the journal's records add up to: the frames still to be answered or delivered, and those that are done. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from splitbus_device.journal import Kind, Record, Spot

MAX_MARKS: Final = 10_000
"""Keys of frames that are done, in memory and copied at compaction: twenty minutes at 8 frames a second."""

_STATES: Final = frozenset((Kind.INPUT, Kind.HEAD, Kind.ANSWER))


@dataclass(slots=True)
class Entry:
    """A frame that is kept, and where its records lie."""

    number: int
    spots: dict[Kind, Spot] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """A frame that is done: its answer was applied."""

    number: int
    spot: Spot


class Ledger:
    """Fed with every record in the order of writing. `mark_bytes`: what marks may take; see `trim`."""

    def __init__(self, mark_bytes: int) -> None:
        self.entries: dict[str, Entry] = {}
        self.marks: dict[str, Mark] = {}
        self.live: Counter[int] = Counter()
        """Bytes still needed, by segment."""
        self.last_number = 0
        self._mark_bytes = mark_bytes
        self._marked = 0

    def note(self, record: Record, spot: Spot) -> None:
        """One more record; a copy of one replaces it, wherever it lies."""
        self.last_number = max(self.last_number, record.number)
        if record.kind in _STATES:
            self._note_state(record, spot)
            return
        entry = self.entries.get(record.key)
        if entry is not None and entry.number <= record.number:
            self._drop(record.key)
        if record.kind is Kind.APPLIED:
            self._note_mark(record, spot)

    def sort(self) -> None:
        """After a journal was read: frames and marks in the order of acceptance, not of their copies."""
        self.entries = dict(sorted(self.entries.items(), key=lambda item: item[1].number))
        self.marks = dict(sorted(self.marks.items(), key=lambda item: item[1].number))

    def trim(self) -> None:
        """Give up the oldest marks beyond the limit."""
        while self._marked > self._mark_bytes or len(self.marks) > MAX_MARKS:
            self._unmark(next(iter(self.marks)))

    def done(self, key: str) -> bool:
        """Whether the answer to this frame was applied, as far as marks reach."""
        return key in self.marks

    def oldest(self) -> str | None:
        """The key of the frame that was accepted first."""
        return next(iter(self.entries), None)

    def states_in(self, segment: int) -> list[Spot]:
        """Records there of frames that are kept."""
        return [spot for entry in self.entries.values() for spot in entry.spots.values() if spot.segment == segment]

    def marks_in(self, segment: int) -> list[tuple[str, int]]:
        """Keys and numbers of frames whose marks lie there."""
        return [(key, mark.number) for key, mark in self.marks.items() if mark.spot.segment == segment]

    def lost_segment(self, segment: int) -> None:
        """The segment is gone, and with it whatever could not be read there any more."""
        for key, entry in list(self.entries.items()):
            for kind, spot in list(entry.spots.items()):
                if spot.segment == segment:
                    del entry.spots[kind]
            if not entry.spots:
                del self.entries[key]
        for key in [key for key, mark in self.marks.items() if mark.spot.segment == segment]:
            self._marked -= self.marks.pop(key).spot.length
        self.live.pop(segment, None)

    @property
    def live_bytes(self) -> int:
        """Bytes still needed."""
        return self.live.total()

    def _note_state(self, record: Record, spot: Spot) -> None:
        mark = self.marks.get(record.key)
        if mark is not None:
            if mark.number >= record.number:
                return
            self._unmark(record.key)  # its mark was given up once, and the frame was accepted anew
        entry = self.entries.get(record.key)
        if entry is not None and entry.number != record.number:
            if entry.number > record.number:
                return
            self._drop(record.key)
            entry = None
        if entry is None:
            entry = self.entries[record.key] = Entry(record.number)
        if Kind.ANSWER in entry.spots and record.kind is not Kind.ANSWER:
            return
        if record.kind is Kind.ANSWER:
            self._release(*entry.spots.values())
            entry.spots.clear()
        elif record.kind in entry.spots:
            self._release(entry.spots[record.kind])
        entry.spots[record.kind] = spot
        self.live[spot.segment] += spot.length

    def _note_mark(self, record: Record, spot: Spot) -> None:
        known = self.marks.get(record.key)
        if known is not None:
            if known.number > record.number:
                return
            self._marked -= known.spot.length
            self._release(known.spot)
        self.marks[record.key] = Mark(record.number, spot)  # a copy keeps its place in the order
        self.live[spot.segment] += spot.length
        self._marked += spot.length

    def _unmark(self, key: str) -> None:
        mark = self.marks.pop(key)
        self._marked -= mark.spot.length
        self._release(mark.spot)

    def _drop(self, key: str) -> None:
        self._release(*self.entries.pop(key).spots.values())

    def _release(self, *spots: Spot) -> None:
        for spot in spots:
            self.live[spot.segment] -= spot.length
            if not self.live[spot.segment]:
                del self.live[spot.segment]
