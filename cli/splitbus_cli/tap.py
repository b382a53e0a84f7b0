"""`splitbus tap`: every message under a filter as a line, binary ones decoded."""

from __future__ import annotations

import datetime as dt
import time

from splitbus_cli.connection import connected
from splitbus_cli.describe import Describer
from splitbus_cli.options import Target
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.limits import MAX_TOPIC_BYTES
from splitbus_schemas.topics import ROOT


def tap(target: Target, pattern: str | None, *, count: int | None, parts: bool, as_json: bool) -> None:
    """Print lines until `count` of them, or for ever. Raises ConfigError, BusError."""
    describer = Describer()
    shown = 0
    with connected(target) as bus:
        bus.subscribe(check_filter(f"{ROOT}/{bus.site}/#" if pattern is None else pattern))
        while count is None or shown < count:
            delivery = bus.inbox.get()
            line = describer.describe(delivery, time.monotonic())
            if line.kind == "part" and not parts:
                continue
            now = dt.datetime.now(dt.UTC).astimezone()
            print(line.to_json() if as_json else f"{now:%H:%M:%S.%f} {line}", flush=True)
            shown += 1


def check_filter(pattern: str) -> str:
    """`pattern`, when MQTT allows it. Raises ConfigError."""
    levels = pattern.split("/")
    wrong = not pattern or "\0" in pattern or len(pattern.encode()) > MAX_TOPIC_BYTES or "#" in levels[:-1]
    if wrong or any(len(level) > 1 and ("+" in level or "#" in level) for level in levels):
        raise ConfigError(
            f"topic filter {pattern!r} is not one of MQTT: '+' stands for one level, a last '#' for all that follow"
        )
    return pattern
