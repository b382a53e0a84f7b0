"""Settings that a camera's guard caught at changing answers more often than promised: left alone for a while. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from splitbus_gateway.promise import Record
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.messages import Plan, StreamStats

DOUBT_S: Final = 3600.0
"""So long a doubted setting is left alone: scenes change, and nobody asks about a setting that does not run."""

Cell: TypeAlias = tuple[int, str]
"""A cut's index and a codec's name."""


@dataclass(frozen=True, slots=True)
class _Doubt:
    agreement: float
    until: float


class Doubts:
    """Of one stream, whose plans promise that at least a share of answers stays the same."""

    def __init__(self, promised: float) -> None:
        self._promised = promised
        self._records: dict[frozenset[Cell], Record] = {}
        self._doubts: dict[Cell, _Doubt] = {}
        self._seen = (-1, 0, 0)
        """Epoch, and what was counted under it."""

    def note(self, plan: Plan, stats: StreamStats | None, now: float) -> str:
        """Take a report of the device; what is doubted from now on, in a sentence, or nothing."""
        if stats is None or (stats.plan, stats.epoch) != (plan.plan, plan.epoch):
            return ""
        checked, agreed = self._news(stats)
        cells = frozenset((cut.index, cut.codec) for cut in plan.cuts if not CODECS[cut.codec].lossless)
        if not cells or checked <= 0 or not 0 <= agreed <= checked:
            return ""
        record = self._records[cells] = self._records.get(cells, Record()).after(checked, agreed)
        if not record.doubts(self._promised):
            return ""
        share = record.agreed / record.checked
        self._doubts |= dict.fromkeys(cells, _Doubt(share, now + DOUBT_S))
        del self._records[cells]
        names = " and ".join(f"cut {cut}/{codec}" for cut, codec in sorted(cells))
        return (
            f"{names} kept {record.agreed} of {record.checked} answers that were asked twice, "
            f"{self._promised:g} of all are promised: not used for {DOUBT_S / 60:g} min"
        )

    def agreements(self, now: float) -> Mapping[Cell, float]:
        """The share that doubted settings were seen to keep."""
        self._doubts = {cell: doubt for cell, doubt in self._doubts.items() if doubt.until > now}
        return {cell: doubt.agreement for cell, doubt in self._doubts.items()}

    def _news(self, stats: StreamStats) -> tuple[int, int]:
        """What was counted since the report before; the device counts from the start of each plan."""
        epoch, checked, agreed = self._seen
        self._seen = stats.epoch, stats.guarded, stats.agreed
        if epoch != stats.epoch or stats.guarded < checked:
            return stats.guarded, stats.agreed
        return stats.guarded - checked, stats.agreed - agreed
