"""What a camera's log says: which frames were asked and answered when, and whether the answers are right."""

from __future__ import annotations

import base64
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
from numpy.typing import NDArray
from tests.e2e.picture_model import one_thread, picture
from tests.faults.growing import GrowingFile

TOLERANCE: Final = 1e-4
"""As a share of the largest output: the suite's codecs lose nothing, machines may round."""

POLL_S: Final = 0.01

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as the camera's program got it. Times in seconds of time.monotonic()."""

    index: int
    asked: float
    at: float
    outcome: str
    route: tuple[str, ...]
    attempts: int
    reason: str
    outputs: tuple[bytes, ...]

    @property
    def seconds(self) -> float:
        return self.at - self.asked

    @property
    def is_local(self) -> bool:
        return len(self.route) == 1


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the frames."""

    frames: int
    lost: int
    doubled: int
    late: int
    wrong: int
    local: int
    slowest_ms: float


class Frames:
    """One camera's log, read as it grows; a line that a kill tore is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = GrowingFile(path)
        self.asked: dict[int, float] = {}
        self.given: list[Given] = []
        self._first_at: list[float] = []

    def read(self) -> None:
        """Take what was written since."""
        for line in self._file.fresh():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            fields: dict[str, Any] = json.loads(line)
        except ValueError:  # what a kill tore, with the next life's first line behind it
            return
        if "asked" in fields:
            self.asked[fields["asked"]] = fields["at"]
        elif "answered" in fields:
            outputs = tuple(base64.b64decode(text) for text in fields["outputs"])
            index = fields["answered"]
            self.given.append(
                Given(
                    index, self.asked.get(index, math.nan), fields["at"], fields["outcome"], tuple(fields["route"]),
                    fields["attempts"], fields["reason"], outputs,
                )
            )  # fmt: skip

    @property
    def next(self) -> int:
        """The number of the frame that comes next."""
        self.read()
        return max(self.asked, default=-1) + 1

    def since(self, at: float) -> list[Given]:
        """Answers given since then."""
        self.read()
        return [one for one in self.given if one.at >= at]

    def first_asked(self, since: float) -> float | None:
        """When the first frame after that was asked."""
        self.read()
        return next((at for at in list(self.asked.values()) if at > since), None)

    def wait(self, what: str, probe: Callable[[], T | None], seconds: float, story: Callable[[], str] = str) -> T:
        """The first true value of `probe`."""
        deadline = time.monotonic() + seconds
        while not (found := probe()):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{story()}"
            time.sleep(POLL_S)
        return found

    def first(self, since: float, fits: Callable[[Given], bool]) -> Given | None:
        """The first fitting answer given since then."""
        return next((one for one in self.since(since) if fits(one)), None)


def judge(
    frames: Iterable[Frames],
    model: Path,
    deadline_s: float,
    excused: Iterable[int] = (),
    *,
    since: float = -math.inf,
    until: float = math.inf,
) -> Tally:
    """Hold every frame that was asked in that time against the promise.

    `excused` were asked by a camera that died before it could be answered.
    """
    excused, asked, given = set(excused), dict[int, float](), list[Given]()
    for one in frames:
        one.read()
        asked |= {index: at for index, at in one.asked.items() if since <= at <= until}
        given += one.given
    given = [one for one in given if one.index in asked]
    times = Counter(one.index for one in given)
    wanted = [index for index in asked if index not in excused or times[index]]
    return Tally(
        frames=len(wanted),
        lost=sum(times[index] == 0 for index in wanted),
        doubled=sum(count > 1 for count in times.values()),
        late=sum(not one.seconds <= deadline_s for one in given),
        wrong=len(wrong(given, model)),
        local=sum(one.is_local for one in given),
        slowest_ms=round(max((one.seconds * 1e3 for one in given), default=0.0), 1),
    )


def wrong(given: Sequence[Given], model: Path) -> list[Given]:
    """Answers that are not onnxruntime's to that very frame, or could be its answer to the one before."""
    session = ort.InferenceSession(str(model), one_thread(), providers=["CPUExecutionProvider"])

    def expected(index: int) -> NDArray[np.float32]:
        (outputs,) = session.run(None, {"x": picture(index)})
        return np.asarray(outputs, np.float32).ravel()

    found = []
    for one in given:
        own, before = expected(one.index), expected(one.index - 1)
        largest = np.abs(own).max()
        got = np.frombuffer(one.outputs[0], np.float32) if len(one.outputs) == 1 else np.empty(0, np.float32)
        right = got.shape == own.shape and float(np.abs(got - own).max()) <= TOLERANCE * largest
        assert np.abs(own - before).max() > 10 * TOLERANCE * largest, "frames look alike, nothing would be proved"
        if not right:
            found.append(one)
    return found
