"""Frames under way on the bus: matches answers to them, and bounds how many may be out at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from splitbus_runtime.transport import Parcel
from splitbus_schemas.packet_types import Refusal, Result

CREDIT_SECONDS: Final = 3.0
"""A frame given up still counts as out for so long unless its answer comes: it may sit in a queue on the way."""


@dataclass(slots=True)
class Out:
    """A frame that is out; the caller's thread waits on `news`."""

    seq: int
    sent: list[float] = field(default_factory=list)
    """When each attempt was sent."""
    nodes: tuple[str, ...] = ()
    """Those on the present attempt's route."""
    alone: bool = True
    """Nothing else of ours was out when it began: its round trip is the link's, not a queue's."""
    news: threading.Event = field(default_factory=threading.Event)
    parcel: Parcel | None = None
    failed: str = ""
    """Why the present attempt will not be answered."""
    refusal: str = ""
    """The word of the node that refused it."""
    lost: int = 0
    """Attempts that will not be answered."""
    given_up: float | None = None
    settled: int = 0
    """Attempts that nobody waits for any more: the frame is asked about again, in finer detail."""

    @property
    def attempt(self) -> int:
        """How often it was sent."""
        return len(self.sent)


class Flights:
    """The frames of one session that are out. Thread-safe."""

    def __init__(self, window: int) -> None:
        self.backlog: Callable[[], int] = lambda: 0
        """Bytes of ours that wait on this machine: while there are any, no frame that was given up is forgotten."""
        self._window = window
        self._lock = threading.Lock()
        self._out: dict[int, Out] = {}

    def begin(self, seq: int, now: float) -> Out | None:
        """Room for one more frame, or None when the window is full."""
        with self._lock:
            if not self.backlog():
                self._forget(now)
            if len(self._out) >= self._window:
                return None
            out = self._out[seq] = Out(seq, alone=not self._out)
            return out

    def _forget(self, now: float) -> None:
        for old in [o for o in self._out.values() if o.given_up is not None and now - o.given_up > CREDIT_SECONDS]:
            del self._out[old.seq]

    def sending(self, out: Out, nodes: tuple[str, ...], now: float) -> None:
        """The frame is about to go out along these nodes; what befell earlier attempts no longer counts."""
        with self._lock:
            out.sent.append(now)
            out.nodes, out.failed, out.refusal = nodes, "", ""
            if out.parcel is None:
                out.news.clear()

    def reopen(self, out: Out) -> None:
        """The frame was answered, and is about to be asked about again: what comes of earlier attempts is too late."""
        with self._lock:
            out.settled = out.lost = out.attempt
            out.parcel, out.failed, out.refusal = None, "", ""

    def unsent(self, out: Out) -> None:
        """It did not go out after all."""
        with self._lock:
            out.sent.pop()

    def end(self, out: Out, now: float) -> None:
        """The frame was answered, by the bus or otherwise. Its place stays taken while an answer may still come."""
        with self._lock:
            if out.parcel is None and out.lost < out.attempt:
                out.given_up = now
            else:
                self._out.pop(out.seq, None)

    def take(self, parcel: Parcel) -> bool:
        """Hand a RESULT or REFUSAL to the frame it is for. False when nobody waits for it any more."""
        packet = parcel.packet
        if not isinstance(packet, Result | Refusal):
            return False
        with self._lock:
            out = self._out.get(packet.frame.seq)
            if out is None or out.parcel is not None or not out.settled < packet.attempt <= out.attempt:
                return False
            if isinstance(packet, Refusal):
                present = packet.attempt == out.attempt and out.given_up is None
                out.refusal = packet.reason if present else out.refusal
                return self._fail(out, f"{packet.node} refused it ({packet.reason}): {packet.detail}", present=present)
            if out.given_up is not None:
                del self._out[out.seq]
                return False
            out.parcel = parcel
            out.news.set()
            return True

    def alone_since(self, seq: int) -> float | None:
        """When a frame was sent, if it was sent once and nothing else was out then."""
        with self._lock:
            out = self._out.get(seq)
            return out.sent[0] if out is not None and out.alone and out.attempt == 1 else None

    def node_lost(self, node: str) -> None:
        """Wake every frame whose present route leads over a node that is gone."""
        with self._lock:
            for out in [o for o in self._out.values() if node in o.nodes and not o.failed]:
                self._fail(out, f"{node} is gone")

    def node_returned(self, node: str) -> None:
        """The node's connection is a new one: what was sent there before never arrived, and takes no place any more."""
        with self._lock:
            for out in [o for o in self._out.values() if node in o.nodes]:
                if out.given_up is not None:
                    del self._out[out.seq]
                elif not out.failed:
                    self._fail(out, f"{node} came back only now")

    def disconnected(self) -> None:
        """No answer will come: whatever was out is not any more."""
        with self._lock:
            for out in list(self._out.values()):
                out.lost = out.attempt
                self._fail(out, "the broker is gone")

    @property
    def count(self) -> int:
        """How many are out."""
        with self._lock:
            return len(self._out)

    def _fail(self, out: Out, why: str, *, present: bool = True) -> bool:
        """One more attempt is lost; `present` when it is the one that is waited for. Gives `present`."""
        out.lost = min(out.lost + 1, out.attempt)
        if out.given_up is not None and out.lost >= out.attempt:
            self._out.pop(out.seq, None)
        if present and out.parcel is None:
            out.failed = why
            out.news.set()
        return present
