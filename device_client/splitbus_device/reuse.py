"""Answers given once more while a camera's scene stands still, within a stated age."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from splitbus_device.answer import Answer
from splitbus_device.predictor import Packed
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.packet_types import Result

DEFAULT_CHANGE: Final = 0.02
"""A scene of which a fiftieth of a key frame would have to be told stands still: that is the noise of a good sensor."""

MAX_KEPT: Final = 4
"""Answers kept: that of the reference, and those of frames that came back since."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """How old an answer may be when it is given again, in seconds, and how little the scene may have changed.

    `change` is the size of what would have to be told over that of a key frame; 0 asks for a scene in which nothing
    changed that the codec can tell. Raises ConfigError.
    """

    seconds: float
    change: float = DEFAULT_CHANGE

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 86_400:
            raise ConfigError(f"reuse is {self.seconds!r}: give the seconds for which an answer may be given again")
        if not 0 <= self.change < 1:
            raise ConfigError(f"change is {self.change!r}: give a share of a key frame, from 0 to below 1")


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it came; `asked` is when its frame was (time.monotonic)."""

    answer: Answer
    result: Result
    asked: float


class Answers:
    """A stream's newest answers. Thread-safe."""

    def __init__(self, reuse: Reuse | None) -> None:
        self._reuse = reuse
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Kept] = OrderedDict()

    def keep(self, kept: Kept) -> None:
        """An answer came."""
        if self._reuse is None:
            return
        with self._lock:
            self._kept[kept.result.frame.seq] = kept
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def again(self, packed: Packed | None, plan: str, epoch: int, asked: float) -> Kept | None:
        """The answer that will do for a frame asked for at that time; None when it has to be sent."""
        if self._reuse is None or packed is None or packed.basis is None or packed.change > self._reuse.change:
            return None
        with self._lock:
            kept = self._kept.get(packed.basis)
        if kept is None or asked - kept.asked > self._reuse.seconds:
            return None
        return kept if (kept.answer.plan, kept.answer.epoch) == (plan, epoch) else None
