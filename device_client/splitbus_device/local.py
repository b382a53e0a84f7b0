"""The local model: it answers when the bus does not, and knows how long that takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from splitbus_runtime.engine import Array, Session, TensorInfo
from splitbus_runtime.profiler import sample
from splitbus_schemas.errors import ModelError
from splitbus_schemas.messages import TensorSpec

log = logging.getLogger(__name__)

RISE: Final = 0.5
FALL: Final = 0.1
"""A slow run counts at once, a fast one by and by: an answer too early is no harm."""


class LocalRunner:
    """Runs the untouched model. `expected_s` is what a run takes: `guess_s` until one was timed."""

    def __init__(self, session: Session, guess_s: float) -> None:
        self.session = session
        self.expected_s = guess_s
        self._timed = False

    def run(
        self, names: Sequence[str] | None, feeds: Mapping[str, Any], options: Any = None
    ) -> tuple[list[Any], float]:
        """The outputs as onnxruntime gives them, and the seconds it took. Raises onnxruntime's own errors."""
        begun = time.monotonic()
        outputs = self.session.run_plain(names, feeds, options)
        seconds = time.monotonic() - begun
        self._learn(seconds)
        return outputs, seconds

    def warm_up(self) -> None:
        """Time a run on made-up inputs, unless one was timed already or no sensible inputs can be made up."""
        if self._timed or not all(map(_is_plain, self.session.inputs)):
            return
        feeds = {info.name: _made_up(info) for info in self.session.inputs}
        try:
            self.session.run(feeds)  # the first run allocates
            begun = time.monotonic()
            self.session.run(feeds)
        except ModelError as error:
            log.info("the local model does not take made-up inputs, so its time is not known yet: %s", error)
            return
        self._learn(time.monotonic() - begun)

    def _learn(self, seconds: float) -> None:
        if not self._timed:
            self.expected_s, self._timed = seconds, True
            return
        self.expected_s += (RISE if seconds > self.expected_s else FALL) * (seconds - self.expected_s)


def _is_plain(info: TensorInfo) -> bool:
    """Whether dtype and every size are known: a run at another size would take another time."""
    return bool(info.dtype) and all(isinstance(size, int) for size in info.shape)


def _made_up(info: TensorInfo) -> Array:
    return sample(TensorSpec(name=info.name, dtype=info.dtype, shape=[int(size or 0) for size in info.shape]))
