"""Two connections of one node to one broker: what ended the one may have ended the other, which is asked at once."""

from __future__ import annotations

from splitbus_runtime.bus import Bus


def look_after_each_other(one: Bus, other: Bus) -> None:
    """When either is lost the other one is doubted."""
    for lost, twin in ((one, other), (other, one)):
        _watch(lost, twin)


def _watch(lost: Bus, twin: Bus) -> None:
    def changed(connected: bool) -> None:  # noqa: FBT001 - the Bus's signature
        if not connected:
            twin.doubt()

    lost.watch(changed)
