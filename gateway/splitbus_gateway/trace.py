"""Recorded or made-up states of a link over time, as CSV: seconds, up Mbit/s, down Mbit/s, round trip ms. Pure."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from splitbus_schemas.errors import ConfigError

COLUMNS: Final = ("seconds", "up Mbit/s", "down Mbit/s", "rtt ms")
MAX_MOMENTS: Final = 1_000_000
_MOST: Final = (1e7, 1e6, 1e6, 60_000.0)
"""What is believed of each column."""

LEAST_MBIT: Final = 0.01
"""A link that is cut counts as this slow, for a latency must be a number."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The link from `at` seconds on, until the next moment."""

    at: float
    up_mbit: float
    down_mbit: float
    rtt_ms: float

    @property
    def state(self) -> tuple[float, float, float]:
        """All but the time."""
        return self.up_mbit, self.down_mbit, self.rtt_ms


@dataclass(frozen=True)
class Trace:
    """Moments in order, and when the last one ends."""

    moments: tuple[Moment, ...]
    end: float

    @property
    def begin(self) -> float:
        return self.moments[0].at

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def at(self, seconds: float) -> Moment:
        """The link at a time; before the first moment it is as it is then."""
        return self.moments[max(0, bisect_right(self.moments, seconds, key=lambda moment: moment.at) - 1)]

    def durations(self) -> tuple[float, ...]:
        """How long each moment lasts, in seconds."""
        ends = [*(moment.at for moment in self.moments[1:]), self.end]
        return tuple(end - moment.at for moment, end in zip(self.moments, ends, strict=True))


def parse_trace(lines: Iterable[str], what: str) -> Trace:
    """The trace in the lines of a CSV file named `what`; a header, empty lines and lines with # are passed over.

    Each line holds until the next; the last as long as the one before it, or for a second. Raises ConfigError with
    the line's number.
    """
    moments: list[Moment] = []
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.strip().lstrip("\ufeff").split(",")]
        if cells == [""] or cells[0].startswith("#") or (not moments and _is_header(cells)):
            continue
        moment = _moment(cells, f"{what} line {number}")
        if moments and moment.at <= moments[-1].at:
            raise ConfigError(f"{what} line {number}: {moment.at:g} s is not after {moments[-1].at:g} s")
        moments.append(moment)
        if len(moments) > MAX_MOMENTS:
            raise ConfigError(f"{what} has more than {MAX_MOMENTS} lines: take a part of it")
    if not moments:
        raise ConfigError(f"{what} holds no line of a trace: write {', '.join(COLUMNS)}")
    last = moments[-1].at - moments[-2].at if len(moments) > 1 else 1.0
    return Trace(tuple(moments), moments[-1].at + last)


def _is_header(cells: list[str]) -> bool:
    return not any(_number(cell) is not None for cell in cells)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _moment(cells: list[str], where: str) -> Moment:
    if len(cells) != len(COLUMNS):
        raise ConfigError(f"{where} has {len(cells)} columns, not {len(COLUMNS)}: write {', '.join(COLUMNS)}")
    values = []
    for name, cell, most in zip(COLUMNS, cells, _MOST, strict=True):
        value = _number(cell)
        if value is None:
            raise ConfigError(f"{where}: {name} {cell!r} is no number")
        if not 0 <= value <= most:
            raise ConfigError(f"{where}: {name} is {value:g}, between 0 and {most:g} is believed")
        values.append(value)
    at, up, down, rtt = values
    return Moment(at, max(up, LEAST_MBIT), max(down, LEAST_MBIT), rtt)


# Made up


def steps(rates: Iterable[float], *, each_s: float = 20.0, rtt_ms: float = 20.0) -> Trace:
    """A link that steps from rate to rate, both ways alike."""
    moments = tuple(Moment(each_s * place, rate, rate, rtt_ms) for place, rate in enumerate(rates))
    return Trace(moments, each_s * len(moments))


def drive(seed: int = 0, *, seconds: float = 300.0, every_s: float = 0.5) -> Trace:
    """A drive through a mobile network: rates wander between 1 and 60 Mbit/s, with fades of a few seconds below that.

    An Ornstein-Uhlenbeck walk of the logarithm of the rate; the round trip grows when the rate falls.
    """
    rng = random.Random(seed)  # noqa: S311 - a made-up link, no secret
    mean, spread, memory_s = math.log(12.0), 0.9, 15.0
    level, fade_until = mean, 0.0
    moments = []
    for place in range(max(1, round(seconds / every_s))):
        at = place * every_s
        keep = math.exp(-every_s / memory_s)
        level = mean + (level - mean) * keep + rng.gauss(0.0, spread * math.sqrt(1 - keep * keep))
        if at >= fade_until and rng.random() < every_s / 30.0:
            fade_until = at + rng.uniform(2.0, 6.0)
        rate = min(max(math.exp(level), 1.0), 60.0) * (0.08 if at < fade_until else 1.0)
        rtt = 25.0 + 60.0 / math.sqrt(rate) * rng.uniform(0.8, 1.2)
        moments.append(Moment(at, rate, min(2.5 * rate, 100.0), rtt))
    return Trace(tuple(moments), len(moments) * every_s)
