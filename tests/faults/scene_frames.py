"""The frames of the fault tests, no two of them alike, and what a camera wrote down about them."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tests.e2e.picture_model import SIDE, TOLERANCES, Array, picture
from tests.faults.growing import GrowingFile

CODECS: Final = ("raw", "zstd", "f16")
"""Those that a site of these tests may use: what they change of an answer is less than what two frames differ by."""

FRAMES: Final = 600
"""After so many, the frames begin again: a minute at ten a second."""

TILE: Final = SIDE // 4


def frame(index: int) -> Array:
    """Frame `index`: the pattern of `picture` under tiles of its own."""
    tiles = np.random.default_rng(index % FRAMES).integers(-60, 60, (3, 4, 4)).astype(np.float32) / 32
    grown = np.kron(tiles, np.ones((TILE, TILE), np.float32))
    return np.ascontiguousarray(picture(index % FRAMES) + grown[None], np.float32)


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, as the camera's own clock and its own onnxruntime saw it; times of time.monotonic()."""

    index: int
    asked: float
    at: float
    outcome: str
    route: tuple[str, ...]
    codecs: tuple[str, ...]
    plan: str
    epoch: int
    off: float
    """From plain onnxruntime's answer to the same frame, as a share of the largest output."""
    late: bool
    reason: str

    @property
    def is_local(self) -> bool:
        return len(self.route) == 1

    @property
    def seconds(self) -> float:
        return self.at - self.asked

    @property
    def is_right(self) -> bool:
        return self.off <= max((TOLERANCES[codec] for codec in self.codecs), default=1e-6)


@dataclass(frozen=True, slots=True)
class Log:
    """What a camera wrote so far."""

    asked: dict[int, float]
    answers: list[Answered]

    def since(self, moment: float) -> Log:
        """Frames that were asked from then on."""
        return Log(
            {index: at for index, at in self.asked.items() if at >= moment},
            [answer for answer in self.answers if answer.asked >= moment],
        )


class Notebook:
    """What a camera writes, read as it grows: the links run in the reader's process, and are to be left their time."""

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path)
        self._log = Log({}, [])

    def read(self) -> Log:
        """All that was written so far."""
        for line in self._file.fresh():
            self._take(json.loads(line))
        return self._log

    def _take(self, row: dict[str, Any]) -> None:
        if "ask" in row:
            self._log.asked[row["ask"]] = row["at"]
        else:
            routes = {"route": tuple(row["route"]), "codecs": tuple(row["codecs"])}
            self._log.answers.append(Answered(**{**row, **routes}))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the frames of a camera that was not killed."""

    frames: int
    lost: tuple[int, ...]
    doubled: tuple[int, ...]
    late: tuple[tuple[int, float], ...]
    wrong: tuple[tuple[int, float], ...]
    dropped: int
    local: int

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.late or self.wrong)

    def __str__(self) -> str:
        return (
            f"{self.frames} frames, {self.local} local, {self.dropped} dropped; lost {self.lost}, "
            f"doubled {self.doubled}, late {self.late}, wrong {self.wrong}"
        )


def judge(log: Log, deadline: float, *, until: float | None = None) -> Verdict:
    """Hold every frame against the promise: one answer, the right one, in time. Frames asked after `until` may be out.

    A frame is late by the camera's own clock, from when it was handed over until its callback ran.
    """
    asked = {index for index, at in log.asked.items() if until is None or at < until}
    told = Counter(answer.index for answer in log.answers)
    answered = [answer for answer in log.answers if answer.outcome == "answered"]
    return Verdict(
        frames=len(asked),
        lost=tuple(sorted(asked - told.keys())),
        doubled=tuple(sorted(index for index, count in told.items() if count > 1)),
        late=tuple((a.index, round(a.seconds, 3)) for a in answered if a.seconds > deadline),
        wrong=tuple((a.index, a.off) for a in answered if not a.is_right),
        dropped=sum(answer.outcome == "dropped" for answer in log.answers),
        local=sum(answer.is_local for answer in answered),
    )


def p99_ms(answers: Sequence[Answered]) -> float:
    """Of the time from asking to answer."""
    times = sorted(answer.seconds * 1e3 for answer in answers)
    return statistics.quantiles(times, n=100)[-1] if len(times) > 1 else times[0]
