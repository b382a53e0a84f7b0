"""Frames under way on the bus: matches answers to them, and bounds how many may be out at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

from splitbus_runtime.transport import Parcel
from splitbus_schemas.packet_types import Refusal, Result

CREDIT_SECONDS: Final = 3.0
"""A frame given up still counts as out for so long unless its answer comes: it may sit in a queue on the way."""


@dataclass(slots=True)
class Out:
    """A frame that was sent; the caller's thread waits on `news`."""

    seq: int
    sent: float
    attempt: int = 1
    news: threading.Event = field(default_factory=threading.Event)
    parcel: Parcel | None = None
    failed: str = ""
    given_up: float | None = None
    nodes: tuple[str, ...] = ()


class Flights:
    """The frames of one session that are out. Thread-safe."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._lock = threading.Lock()
        self._out: dict[int, Out] = {}

    def begin(self, seq: int, now: float) -> Out | None:
        """Room for one more frame, or None when the window is full."""
        with self._lock:
            for old in [o for o in self._out.values() if o.given_up is not None and now - o.given_up > CREDIT_SECONDS]:
                del self._out[old.seq]
            if len(self._out) >= self._window:
                return None
            out = self._out[seq] = Out(seq, now)
            return out

    def resent(self, out: Out, now: float) -> None:
        """The frame goes out again; refusals of earlier attempts no longer count."""
        with self._lock:
            out.sent, out.failed = now, ""
            out.attempt += 1
            if out.parcel is None:
                out.news.clear()

    def done(self, out: Out) -> None:
        """The frame was answered from the bus, or never left."""
        with self._lock:
            self._out.pop(out.seq, None)

    def give_up(self, out: Out, now: float) -> None:
        """The frame was answered otherwise; its place stays taken until its answer comes or time passes."""
        with self._lock:
            out.given_up = now

    def take(self, parcel: Parcel) -> bool:
        """Hand a RESULT or REFUSAL to the frame it is for. False when nobody waits for it any more."""
        packet = parcel.packet
        if not isinstance(packet, Result | Refusal):
            return False
        with self._lock:
            out = self._out.get(packet.frame.seq)
            if out is None:
                return False
            if out.given_up is not None:
                if isinstance(packet, Result):
                    del self._out[out.seq]
                return False
            if isinstance(packet, Result):
                if out.parcel is not None:
                    return False
                out.parcel = parcel
            elif packet.attempt != out.attempt:
                return False
            else:
                out.failed = f"{packet.node} refused it ({packet.reason}): {packet.detail}"
            out.news.set()
            return True

    def node_lost(self, node: str) -> None:
        """Wake every frame whose present route leads over a node that is gone."""
        with self._lock:
            for out in self._out.values():
                if node in out.nodes and out.parcel is None:
                    out.failed = f"{node} is gone"
                    out.news.set()

    def disconnected(self) -> None:
        """No answer will come: whatever was out is not any more."""
        with self._lock:
            for out in self._out.values():
                if out.parcel is None:
                    out.failed = "the broker is gone"
                    out.news.set()
            self._out = {seq: out for seq, out in self._out.items() if out.given_up is None}

    @property
    def count(self) -> int:
        """How many are out."""
        with self._lock:
            return len(self._out)
