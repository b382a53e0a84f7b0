"""Durable frames: each is kept on disk from when it is accepted until its answer was applied, and applied once."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import Field

from splitbus_device.answer import Answer
from splitbus_device.journal import Kind, key_objection
from splitbus_device.journal_file import Fsync, Journal
from splitbus_device.recorded import (
    Content,
    Head,
    Inputs,
    pack_answer,
    pack_head,
    pack_inputs,
    unpack_answer,
    unpack_head,
    unpack_inputs,
)
from splitbus_runtime.settings import Settings
from splitbus_schemas.errors import ConfigError, DecodeError, JournalError, SplitbusError
from splitbus_schemas.packet import Array
from splitbus_schemas.packet_types import Tensor

log = logging.getLogger(__name__)

DEFAULT_LIMIT_MB: Final = 256
"""Some four hundred frames of 224 x 224 in float32: far more than are ever out, should the caller fall behind."""

Report: TypeAlias = Callable[[str, str], None]
"""Called with a counter's name and, when it is news, the reason."""


class Durable(Settings):
    """How durable frames are kept."""

    folder: Path = Field(description="Where: a folder for this session alone.")
    fsync: Fsync = Field(
        default="interval",
        description="When records are brought to the disk: `always` before anything is promised, `interval`, `never`.",
    )
    interval_s: float = Field(
        default=1.0, gt=0, le=3600, description="With `interval`: seconds that a power cut may cost."
    )
    limit_mb: int = Field(
        default=DEFAULT_LIMIT_MB, ge=1, le=2**20, description="What the folder may hold; the oldest frames give way."
    )


@dataclass(frozen=True, slots=True)
class JournalState:
    """What is kept, and what went wrong since the session was opened."""

    frames: int
    """Accepted and not applied yet."""
    bytes: int
    """On disk."""
    counters: Mapping[str, int]
    """durable_unkept: frames answered that the disk did not take; durable_evicted: given up for room, oldest first;
    durable_damaged: records lost to damage; durable_unmarked: applied, but the disk did not take the mark;
    durable_unsynced: syncs in the background that failed."""


@dataclass(slots=True)
class Ticket:
    """A durable frame on its way through the session."""

    key: str
    keeper: Keeper = field(repr=False)
    number: int | None = None
    """In the journal; None when it could not be kept."""
    fresh: bool = False
    """It was accepted just now, not in an earlier life."""
    unkept: bool = False
    """The disk refused one of its records."""
    known: bool = False
    """Its answer was applied already."""
    inputs: Inputs | None = None
    head: Head | None = None
    answer: Answer | None = None
    """As recorded by an earlier life of the process."""

    def cancel(self, *, forget: bool) -> None:
        """It gets no answer from this call; `forget` a fresh one, for its caller knows."""
        if forget and self.fresh:
            self.keeper.forget(self.key)
        else:
            self.keeper.release(self.key)

    def keep_head(self, plan_json: bytes, sent: Sequence[Tensor], kept: Mapping[str, Array]) -> None:
        """The head is done, and need not be run again."""
        if self.head is None and not self.known:
            self.keeper.write(Kind.HEAD, self, lambda: pack_head(plan_json, sent, kept))

    def answered(self, answer: Answer, names: Sequence[str] | None) -> Answer:
        """The answer to deliver, once it is kept."""
        answer = replace(answer, key=self.key, repeated=self.known)
        if not self.known and answer.outcome == "answered":
            self.keeper.write(Kind.ANSWER, self, lambda: pack_answer(answer, names))
        self.keeper.release(self.key)
        return answer


class Keeper:
    """A session's durable frames. Thread-safe. What cannot be kept is answered all the same, counted and reported."""

    def __init__(self, settings: Durable, report: Report) -> None:
        self._report = report
        self._counters: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._unmarked: set[str] = set()
        """Applied, but the disk did not take the mark."""
        self._journal = Journal(
            settings.folder,
            limit_bytes=settings.limit_mb * 2**20,
            fsync=settings.fsync,
            interval_s=settings.interval_s,
            evicted=self._on_evicted,
            unsynced=lambda reason: self._count("durable_unsynced", reason),
        )
        self._last_before = self._journal.ledger.last_number
        if self._journal.damaged_bytes:
            log.warning("%d bytes at no record's place in %s", self._journal.damaged_bytes, settings.folder)
            self._count("durable_damaged", f"{settings.folder} has {self._journal.damaged_bytes} bytes of torn records")

    @property
    def state(self) -> JournalState:
        """What is kept now."""
        with self._lock:
            counters = dict(self._counters)
        return JournalState(len(self._journal.ledger.entries), self._journal.total_bytes, counters)

    def accept(self, key: str, feeds: Mapping[str, Any], names: Sequence[str] | None) -> Ticket:
        """A frame: kept when this returns, unless the disk refuses. Raises ConfigError."""
        objection = key_objection(key)
        if objection:
            raise ConfigError(objection)
        self._mark_again()
        ticket = Ticket(key, self)
        with self._lock:
            if key in self._under_way:
                raise ConfigError(f"frame key {key!r} is under way already: give each frame a key of its own")
            ticket.known = self._journal.ledger.done(key) or key in self._unmarked
            if ticket.known:
                return ticket
            self._under_way.add(key)
        if key not in self._journal.ledger.entries:
            ticket.fresh = True
            self.write(Kind.INPUT, ticket, lambda: pack_inputs(feeds, names))
        else:
            asked = self._load(ticket)
            if ticket.answer is not None and asked != (None if names is None else tuple(names)):
                ticket.answer = None
        return ticket

    def left(self) -> list[str]:
        """Frames of earlier lives whose answers were not applied, oldest first."""
        with self._lock:
            entries = dict(self._journal.ledger.entries)
            keys = [k for k, e in entries.items() if e.number <= self._last_before and k not in self._under_way]
        return sorted(keys, key=lambda key: entries[key].number)

    def resume(self, key: str) -> Ticket | None:
        """Take up a frame that was left; None when it is gone."""
        ticket = Ticket(key, self)
        with self._lock:
            if key not in self._journal.ledger.entries or key in self._under_way:
                return None
            self._under_way.add(key)
        self._load(ticket)
        if ticket.inputs is None and ticket.head is None and ticket.answer is None:
            self._count("durable_damaged", f"what is kept of frame {key!r} cannot be read")
            self.forget(key)
            return None
        return ticket

    def write(self, kind: Kind, ticket: Ticket, content: Callable[[], Content]) -> None:
        """One more record of a frame, if the disk takes it."""
        try:
            facts, body = content()
            ticket.number = self._journal.append(kind, ticket.key, ticket.number, facts, body)
        except SplitbusError as error:
            if ticket.unkept:
                return
            ticket.unkept = True
            self._count("durable_unkept", f"frame {ticket.key!r} is answered, but not kept: {error}")
        else:
            self._failing.discard("durable_unkept")

    def applied(self, key: str) -> None:
        """The caller is done with this frame's answer: it is never delivered again."""
        if self._journal.ledger.done(key):
            return
        entry = self._journal.ledger.entries.get(key)
        try:
            self._journal.append(Kind.APPLIED, key, entry.number if entry is not None else None)
        except JournalError as error:
            with self._lock:
                self._unmarked.add(key)
            self._count("durable_unmarked", f"frame {key!r} may be delivered again after a restart: {error}")
        else:
            with self._lock:
                self._unmarked.discard(key)
            self._failing.discard("durable_unmarked")

    def forget(self, key: str) -> None:
        """The frame is the caller's affair again."""
        self.release(key)
        entry = self._journal.ledger.entries.get(key)
        if entry is not None:
            try:
                self._journal.append(Kind.FORGOTTEN, key, entry.number)
            except JournalError as error:
                self._count("durable_unmarked", f"frame {key!r} may be answered again after a restart: {error}")

    def release(self, key: str) -> None:
        """The frame is no longer under way."""
        with self._lock:
            self._under_way.discard(key)

    def close(self) -> None:
        """Let go of the folder."""
        self._mark_again()
        self._journal.close()

    def _mark_again(self) -> None:
        """Marks that the disk did not take."""
        if self._unmarked:
            with self._lock:
                keys = list(self._unmarked)
            for key in keys:
                self.applied(key)

    def _load(self, ticket: Ticket) -> tuple[str, ...] | None:
        """Read what is kept of a frame; gives the outputs that its answer was asked for."""
        asked = None
        ticket.number, records = self._journal.records(ticket.key)
        for kind, record in records.items():
            if record is None:
                self._count("durable_damaged", f"a record of frame {ticket.key!r} is damaged")
                continue
            try:
                if kind is Kind.INPUT:
                    ticket.inputs = unpack_inputs(record)
                elif kind is Kind.HEAD:
                    ticket.head = unpack_head(record)
                else:
                    ticket.answer, asked = unpack_answer(record)
            except DecodeError as error:
                self._count("durable_damaged", str(error))
        return asked

    def _on_evicted(self, key: str) -> None:
        self._count("durable_evicted", f"frame {key!r} is given up: the journal is full of frames that are newer")

    def _count(self, what: str, reason: str) -> None:
        """Count; say why when it begins."""
        with self._lock:
            self._counters[what] += 1
        news = what not in self._failing
        self._failing.add(what)
        self._report(what, reason if news else "")


def settings_of(durable: str | os.PathLike[str] | Durable) -> Durable:
    """What the caller gave as `durable`."""
    return durable if isinstance(durable, Durable) else Durable(folder=Path(durable))
