"""What is known of a link, from durations alone: no two clocks are ever compared. Pure: the clock is passed in."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from splitbus_schemas.messages import LinkReport

RECENT: Final = 5
"""Samples that an estimate rests on."""

STEP: Final = 1.5
"""A sample that is off by this factor makes a link suspect."""

PROVEN: Final = 0.5
"""Share of a round trip beyond the known one that a train must have taken; the rest may have been somebody's delay."""

STALE_S: Final = 10.0
"""After such a silence the next sample stands alone."""

HALF_LIFE_S: Final = 20.0
"""Age at which half of the confidence in a link is gone."""

MAX_MBIT: Final = 40_000.0
"""Faster than any network under this bus; beyond it a train's duration was a scheduler's whim."""

MAX_RTT_S: Final = 60.0
"""Longer than any deadline."""

Source: TypeAlias = Literal["traffic", "probe"]
Doubt: TypeAlias = Literal["", "low", "high"]


@dataclass(frozen=True, slots=True)
class Series:
    """The latest few values of one quantity and when the newest came."""

    values: tuple[float, ...] = ()
    count: int = 0
    newest: float = float("-inf")
    doubt: Doubt = ""
    """That the estimate may be too low or too high, until a value that is higher, or lower, stands alone."""

    def add(self, value: float, now: float) -> Series:
        """With one more value."""
        bears_out = self._bears_out(value)
        values = () if bears_out or now - self.newest > STALE_S else self.values
        doubt: Doubt = "" if bears_out else self.doubt
        return Series(_believed((*values, value)[-RECENT:], self.estimate), self.count + 1, now, doubt)

    def doubted(self, doubt: Doubt) -> Series:
        """The same until a value bears the doubt out: a value that does not may be any moment's hiccup."""
        return replace(self, doubt=doubt)

    def _bears_out(self, value: float) -> bool:
        middle = self.estimate
        return middle is not None and (
            (self.doubt == "low" and value > middle) or (self.doubt == "high" and value < middle)
        )

    def is_off(self, value: float) -> bool:
        """Whether a value differs from the estimate by more than chance would."""
        middle = self.estimate
        return middle is not None and not middle / STEP <= value <= middle * STEP

    @property
    def estimate(self) -> float | None:
        """The second lowest of the latest five; None before the first.

        A receiver that was scheduled late takes a train's parts together and overrates the link, and a queue on the way
        overrates a round trip, both often; so a fall shows after two samples, a rise after four.
        """
        return sorted(self.values)[(len(self.values) - 1) // 3] if self.values else None

    @property
    def spread(self) -> float:
        """Median distance of the latest values from the estimate, relative to it: an outlier is no doubt."""
        middle = self.estimate
        return statistics.median(abs(value - middle) for value in self.values) / middle if middle else 0.0


def _believed(values: tuple[float, ...], estimate: float | None) -> tuple[float, ...]:
    """Without what the newest value gives the lie to: a low one just before it, or all from before a step.

    Two in a row far below the estimate are a step, and four far above it.
    """
    if estimate is None or len(values) < 3:
        return values
    low, high = estimate / STEP, estimate * STEP
    if values[-2] < low <= values[-1]:
        return (*values[:-2], values[-1])
    if max(values[-2:]) < low:
        return values[-2:]
    return values[-4:] if len(values) > 3 and min(values[-4:]) > high else values


@dataclass(frozen=True, slots=True)
class LinkEstimate:
    """A link between this node and a peer."""

    rtt_s: Series = Series()
    up_mbit: Series = Series()
    down_mbit: Series = Series()
    sent: int = 0
    lost: int = 0
    source: Source = "traffic"

    def doubted(self) -> LinkEstimate:
        """The same until it proves to be better: what was measured of late may have been its end's slowness."""
        rates = self.up_mbit.doubted("low"), self.down_mbit.doubted("low")
        return replace(self, rtt_s=self.rtt_s.doubted("high"), up_mbit=rates[0], down_mbit=rates[1])

    def with_rtt(self, seconds: float, now: float, source: Source) -> LinkEstimate:
        """After a round trip of a tiny message took `seconds`, time at the peer taken off."""
        if not 0 <= seconds <= MAX_RTT_S:
            return self
        return replace(self, rtt_s=self.rtt_s.add(seconds, now), source=source)

    def with_up(
        self, size: int, seconds: float, now: float, source: Source, whole_s: float | None = None
    ) -> LinkEstimate:
        """After a train of `size` bytes took `seconds` to arrive at the peer.

        `whole_s` is how long there and back took beside, when nothing else was on the way: a train that its receiver
        found ready in a heap looks faster than any link, but its sender has waited for it all the same.
        """
        rate = self.up_mbit
        if whole_s is not None and self.rtt_s.estimate is not None and seconds > 0:
            proven_s = PROVEN * (whole_s - self.rtt_s.estimate)
            seconds = max(seconds, proven_s) if rate.is_off(size * 8 / seconds / 1e6) else seconds
        return replace(self, up_mbit=_with_rate(rate, size, seconds, now), source=source)

    def with_down(self, size: int, seconds: float, now: float, source: Source) -> LinkEstimate:
        """After a train of `size` bytes took `seconds` to arrive here."""
        return replace(self, down_mbit=_with_rate(self.down_mbit, size, seconds, now), source=source)

    def with_outcome(self, *, lost: bool) -> LinkEstimate:
        """After a message was answered, or was not."""
        keep = 100  # an old loss is forgotten after about a hundred messages
        sent, bad = self.sent + 1, self.lost + int(lost)
        return replace(self, sent=sent if sent < keep else sent // 2, lost=bad if sent < keep else bad // 2)

    def age(self, now: float) -> float:
        """Seconds since the newest sample of any kind; infinite before the first."""
        return max(0.0, now - max(self.rtt_s.newest, self.up_mbit.newest, self.down_mbit.newest))

    def oldest_age(self, now: float) -> float:
        """Seconds since the quantity that has waited longest was sampled; the way back matters less and may wait."""
        return max(now - min(self.rtt_s.newest, self.up_mbit.newest), (now - self.down_mbit.newest) / 5)

    def confidence(self, now: float) -> float:
        """0 to 1: grows with samples, shrinks with their spread and age."""
        known = [series for series in (self.rtt_s, self.up_mbit) if series.values]
        if len(known) < 2:
            return 0.0
        return min(_trust(series, now) for series in known)

    def report(self, node: str, peer: str, now: float) -> LinkReport:
        """For the link's topic."""
        rtt = self.rtt_s.estimate
        return LinkReport(
            node=node,
            peer=peer,
            rtt_ms=None if rtt is None else round(rtt * 1e3, 3),
            up_mbit=_rounded(self.up_mbit.estimate),
            down_mbit=_rounded(self.down_mbit.estimate),
            loss=round(self.lost / self.sent, 3) if self.sent else 0.0,
            samples=self.rtt_s.count + self.up_mbit.count + self.down_mbit.count,
            age_s=round(min(max(self.age(now), 0.0), 1e9), 3),  # a sample may be newer than the caller's now
            confidence=round(self.confidence(now), 3),
            source=self.source,
        )


def _trust(series: Series, now: float) -> float:
    age = max(0.0, now - series.newest)
    fresh: float = 0.5 ** (age / HALF_LIFE_S)
    return series.count / (series.count + 2) * fresh / (1 + series.spread)


def _with_rate(series: Series, size: int, seconds: float, now: float) -> Series:
    if size <= 0 or not 0 < seconds < math.inf:
        return series
    return series.add(min(size * 8 / seconds / 1e6, MAX_MBIT), now)


def _rounded(value: float | None) -> float | None:
    return None if value is None else max(round(value, 3), 0.001)
