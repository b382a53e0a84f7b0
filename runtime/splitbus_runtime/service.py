"""How a daemon runs under systemd, or without it: signals, readiness, status, and a watchdog fed by real work."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from splitbus_runtime.heap import settle
from splitbus_runtime.notify import notify

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
START_POLL_SECONDS: Final = 0.1

START_MICROSECONDS: Final = 30_000_000
"""While a daemon waits for the broker, systemd is asked for so much more time."""


class Daemon(Protocol):
    """What is told of a daemon that runs on threads of its own."""

    @property
    def ready(self) -> bool:
        """Whether the broker has accepted its subscriptions."""

    @property
    def healthy(self) -> bool:
        """Whether a message went through the broker and came back, not long ago, and no part of it hangs."""

    @property
    def status(self) -> str:
        """What it does, or what it lacks; a log line is written when the part before the first semicolon changes."""


def serve(daemon: Daemon, *, stop: threading.Event | None = None, reload: Callable[[], None] = lambda: None) -> None:
    """Report to systemd until SIGTERM, SIGINT or `stop`; `reload` is called after a SIGHUP, on this thread."""
    stop, hangup = stop or threading.Event(), threading.Event()
    _show_stacks_when_aborted()
    started, before = False, ""
    with _signals({signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: hangup}):
        while not stop.wait(POLL_SECONDS if started else START_POLL_SECONDS):
            if hangup.is_set():
                hangup.clear()
                reload()
            started = _tell_systemd(daemon, started=started)
            status = daemon.status
            notify(f"STATUS={status}")
            if (what := status.partition(";")[0]) != before:
                before = what
                log.info("%s", status)
        notify("STOPPING=1")


def _show_stacks_when_aborted() -> None:
    """The watchdog ends a process by SIGABRT: its log then shows where every thread was, lines of code alone."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stderr that is no file
        faulthandler.enable(sys.stderr)


def _tell_systemd(daemon: Daemon, *, started: bool) -> bool:
    """Readiness once, then the watchdog while the daemon does its work; whether the daemon has been ready."""
    if not started and not daemon.ready:
        notify(f"EXTEND_TIMEOUT_USEC={START_MICROSECONDS}")
        return False
    if not started:
        if threading.current_thread() is threading.main_thread():  # else the process is somebody else's
            settle()
        notify("READY=1")
    if daemon.healthy:
        notify("WATCHDOG=1")
    return True


@contextlib.contextmanager
def _signals(events: dict[signal.Signals, threading.Event]) -> Iterator[None]:
    """Each signal sets its event; only the main thread may ask for that.

    Another thread sets it: the handler runs between any two steps of this one, which may hold the event's own lock.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def pass_on() -> None:
        while (number := heard.get()) is not None:
            events[signal.Signals(number)].set()

    thread = threading.Thread(target=pass_on, name="splitbus-signals", daemon=True)
    thread.start()
    before = {number: signal.signal(number, lambda came, _: heard.put(came)) for number in events}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        heard.put(None)
        thread.join()
