"""Link reports of both ends become one view of each link: levels that step, the most confident report first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from splitbus_gateway.changes import RATE, ROUND_TRIP, Level, Sensitivity, follow
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

_LEAST: Final = 1e-3
"""A round trip of nothing has no logarithm."""


@dataclass(slots=True)
class _Seen:
    """What one end reports."""

    report: LinkReport
    measured_at: float
    worth: float
    levels: dict[str, Level] = field(default_factory=dict)
    """Of the fields' logarithms."""

    def weight(self, now: float) -> float:
        age = max(0.0, now - self.measured_at)
        return float(self.report.confidence * self.worth * 0.5 ** (age / HALF_LIFE_S))

    def value(self, name: str) -> float | None:
        return math.exp(self.levels[name].mean) if name in self.levels else None

    def outlives(self, now: float, *, retained: bool) -> bool:
        """Whether the next report goes on from these levels: not from those of another time."""
        return now - self.measured_at <= HALF_LIFE_S and (retained or self.worth == 1.0)


_FIELDS: Final[dict[str, Sensitivity]] = {"rtt_ms": ROUND_TRIP, "up_mbit": RATE, "down_mbit": RATE}
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
        levels = dict(before.levels) if before else {}
        last = before.report if before and before.outlives(now, retained=retained) else None
        for name, how in _FIELDS.items():
            sample = getattr(report, name)
            if sample is None:
                continue
            value = math.log(max(sample, _LEAST))
            if last and sample == getattr(last, name) and not _insists(value, levels.get(name), how):
                continue  # what merely repeats the last report is no news
            levels[name] = follow(levels.get(name) if last else None, value, how)
        self._seen[ends] = _Seen(report, now - report.age_s, RETAINED_WORTH if retained else 1.0, levels)

    def forget(self, node: str, peer: str) -> None:
        """The report was removed."""
        self._seen.pop((node, peer), None)

    def facts(self, sender: str, receiver: str, now: float) -> LinkFacts | None:
        """The link from `sender` to `receiver` by both ends' reports; None when neither reported."""
        own, other = self._seen.get((sender, receiver)), self._seen.get((receiver, sender))
        views = [(seen, names) for seen, names in ((own, tuple(_FIELDS)), (other, _MIRRORED)) if seen]
        if not views:
            return None
        views.sort(key=lambda view: view[0].weight(now), reverse=True)
        best = views[0][0]
        rtt, up, down = (_first(views, place) for place in range(len(_FIELDS)))
        return LinkFacts(rtt, up, down, best.weight(now))


def _insists(value: float, level: Level | None, how: Sensitivity) -> bool:
    """Whether a report that says the same again is so far from the level that it should be heard."""
    return level is not None and abs(value - level.mean) > how.alarm


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
