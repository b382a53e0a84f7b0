"""Log lines on stderr: for people, or one JSON object a line; limited by kind, and without secrets."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

from splitbus_cli.log_limit import LineLimit
from splitbus_runtime.secrets import redacted

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_OWN: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "kind", "left_out", "taskName"}
"""What every record has; all else was given with it, as `extra`."""


def kind_of(record: logging.LogRecord) -> str:
    """Which kind of line a record is: as it says itself, else its text before anything was filled in."""
    return str(getattr(record, "kind", record.msg))


class TextFormatter(logging.Formatter):
    """A line for people, with its traceback behind it."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        left_out = getattr(record, "left_out", 0)
        return redacted(super().format(record) + (f" (and {left_out} more like it)" if left_out else ""))


class JsonFormatter(logging.Formatter):
    """One object a line: at, level, logger, kind, message; thread, traceback, left_out and extras where there are any.

    `kind` is the same for all lines that say the same of different things.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "kind": redacted(kind_of(record)),
            "message": redacted(record.getMessage()),
            "thread": record.threadName,
        }
        if record.exc_info:
            line["traceback"] = redacted(self.formatException(record.exc_info))
        if left_out := getattr(record, "left_out", 0):
            line["left_out"] = left_out
        extras = {name: redacted(str(value)) for name, value in vars(record).items() if name not in _OWN}
        return json.dumps(extras | line)


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes no more of one kind than LineLimit allows; how many were left out is said by a later line."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._limit, self._clock = LineLimit(), clock

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless it is one too many of its kind. Called under the handler's lock."""
        now = self._clock()
        self._tell_quiet(now)
        left_out = self._limit.take((record.name, kind_of(record)), now)
        if left_out is not None:
            record.left_out = left_out
            super().emit(record)

    def _tell_quiet(self, now: float) -> None:
        for kind, count in self._limit.quiet(now):
            name, what = kind if isinstance(kind, tuple) else ("splitbus", kind)
            text = "%d lines were left out: %s"
            super().emit(logging.LogRecord(str(name), logging.WARNING, "", 0, text, (count, what), None))


def configure(level: str, *, as_json: bool) -> None:
    """Send all log records of at least `level` to stderr, and what ends a thread as well."""
    handler = LimitedHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    threading.excepthook = _log_end_of_thread


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is SystemExit or ended.exc_value is None:
        return
    name = ended.thread.name if ended.thread else "of unknown name"
    error = (ended.exc_type, ended.exc_value, ended.exc_traceback)
    logging.getLogger(__name__).critical("thread %s ended: %s", name, ended.exc_value, exc_info=error)
