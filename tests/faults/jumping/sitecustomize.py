"""Python imports this at its start: the wall clock of a process, ahead by the seconds in the file $CLOCK_AHEAD.

Monotonic clocks go on, as they do when somebody sets a machine's time.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

_FILE = Path(os.environ["CLOCK_AHEAD"])
_time, _time_ns = time.time, time.time_ns
_Datetime = dt.datetime


def _ahead() -> int:
    try:
        return int(_FILE.read_text() or "0")
    except (OSError, ValueError):  # it is being written
        return 0


class _Class(type(_Datetime)):  # type: ignore[misc]
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _Datetime)


class _Jumping(_Datetime, metaclass=_Class):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _Datetime.now(tz) + dt.timedelta(seconds=_ahead())


time.time = lambda: _time() + _ahead()
time.time_ns = lambda: _time_ns() + _ahead() * 10**9
dt.datetime = _Jumping  # type: ignore[misc]
