"""Link reports of both ends become one view of each link: smoothed, the newest and most confident report first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from splitbus_gateway.problem import LinkFacts
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.messages import LinkReport

HALF_LIFE_S: Final = 60.0
"""An idle link is probed more often than that; a report twice as old is worth a quarter."""

MAX_RTT_MS: Final = 60_000.0
MIN_MBIT: Final = 1e-3
MAX_MBIT: Final = 1e6
"""A terabit a second; narrower than the wire's own bounds, because plans are made of these."""

RETAINED_WORTH: Final = 0.5
"""A retained report is of unknown age."""


@dataclass(frozen=True, slots=True)
class Smoothed:
    """A level that follows jitter slowly and steps at once: `streak` counts samples in a row far on one side."""

    level: float
    newest: float
    streak: int = 0


_WEIGHT: Final = 0.2
_STEP: Final = 3.0
"""No jitter: one such sample moves the level. 20 % of jitter never gets there."""
_FAR: Final = 1.8
"""Twice in a row on one side is no jitter either."""


def smooth(old: Smoothed | None, sample: float) -> Smoothed:
    """The level after one more sample; a sample that merely repeats the last one is no news."""
    if old is None or not old.level:
        return Smoothed(sample, sample)
    if sample == old.newest:
        return old
    ratio = sample / old.level
    side = (ratio > _FAR) - (ratio < 1 / _FAR)
    streak = old.streak + side if side * old.streak > 0 else side
    if ratio > _STEP or ratio < 1 / _STEP or abs(streak) >= 2:
        return Smoothed(sample, sample)
    return Smoothed(old.level * (1 - _WEIGHT) + sample * _WEIGHT, sample, streak)


@dataclass(slots=True)
class _Seen:
    """What one end reports."""

    report: LinkReport
    measured_at: float
    worth: float
    rates: dict[str, Smoothed] = field(default_factory=dict)

    def weight(self, now: float) -> float:
        age = max(0.0, now - self.measured_at)
        return float(self.report.confidence * self.worth * 0.5 ** (age / HALF_LIFE_S))

    def value(self, name: str) -> float | None:
        return self.rates[name].level if name in self.rates else None


_FIELDS: Final = ("rtt_ms", "up_mbit", "down_mbit")
_MIRRORED: Final = ("rtt_ms", "down_mbit", "up_mbit")
"""The same fields as the other end calls them."""


class Links:
    """All link reports, by reporter and peer."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def report(self, report: LinkReport, now: float, *, retained: bool = False) -> None:
        """Take a report. Raises DecodeError for figures that no link has."""
        _check(report)
        ends = (report.node, report.peer)
        before = self._seen.get(ends)
        rates = dict(before.rates) if before else {}
        for name in _FIELDS:
            sample = getattr(report, name)
            if sample is not None:
                rates[name] = smooth(rates.get(name), sample)
        self._seen[ends] = _Seen(report, now - report.age_s, RETAINED_WORTH if retained else 1.0, rates)

    def forget(self, node: str, peer: str) -> None:
        """The report was removed."""
        self._seen.pop((node, peer), None)

    def facts(self, sender: str, receiver: str, now: float) -> LinkFacts | None:
        """The link from `sender` to `receiver` by both ends' reports; None when neither reported."""
        own, other = self._seen.get((sender, receiver)), self._seen.get((receiver, sender))
        views = [(seen, names) for seen, names in ((own, _FIELDS), (other, _MIRRORED)) if seen]
        if not views:
            return None
        views.sort(key=lambda view: view[0].weight(now), reverse=True)
        best = views[0][0]
        rtt, up, down = (_first(views, place) for place in range(len(_FIELDS)))
        return LinkFacts(rtt, up, down, best.weight(now))


def _first(views: Sequence[tuple[_Seen, tuple[str, ...]]], place: int) -> float | None:
    """The field by the most trusted end that has it."""
    return next((value for seen, names in views if (value := seen.value(names[place])) is not None), None)


def _check(report: LinkReport) -> None:
    ends = f"link {report.node}>{report.peer}"
    if report.node == report.peer:
        raise DecodeError(f"{ends} leads nowhere")
    if report.rtt_ms is not None and report.rtt_ms > MAX_RTT_MS:
        raise DecodeError(f"{ends} reports a round trip of {report.rtt_ms:g} ms, at most {MAX_RTT_MS:g} is believed")
    for name in ("up_mbit", "down_mbit"):
        rate = getattr(report, name)
        if rate is not None and not MIN_MBIT <= rate <= MAX_MBIT:
            raise DecodeError(f"{ends} reports {name} {rate:g}, between {MIN_MBIT:g} and {MAX_MBIT:g} is believed")
