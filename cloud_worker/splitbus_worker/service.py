"""The daemon: runs a worker until it is told to stop, and tells systemd how it does where there is one."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import sdnotify

from splitbus_worker.settings import WorkerConfig
from splitbus_worker.worker import Worker

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0

ECHO_SECONDS: Final = 10.0
"""A heartbeat that came back within this time feeds the watchdog; one is sent every second."""

START_MICROSECONDS: Final = 30_000_000
"""While it waits for the broker, systemd is asked for so much more time."""


def run(config: WorkerConfig, *, stop: threading.Event | None = None) -> int:
    """Serve until SIGTERM, SIGINT or `stop`; gives the exit code. Raises ConfigError.

    A broker that is not there, or refuses us, is no reason to end: it is tried again and the status says why.
    """
    stop = stop or threading.Event()
    worker = Worker(config)
    systemd = sdnotify.SystemdNotifier()
    with _stopped_by_signals(stop):
        worker.start()
        try:
            _watch(worker, systemd, stop)
        finally:
            systemd.notify("STOPPING=1")
            worker.stop()
    log.info("%s stopped", worker.node)
    return 0


def _watch(worker: Worker, systemd: Any, stop: threading.Event) -> None:
    started, before = False, ""
    while not stop.wait(POLL_SECONDS if started else 0.1):
        fresh = time.monotonic() - worker.agent.last_echo < ECHO_SECONDS
        if worker.ready and not started:
            started = True
            systemd.notify("READY=1")
        if fresh:
            systemd.notify("WATCHDOG=1")
        elif not started:
            systemd.notify(f"EXTEND_TIMEOUT_USEC={START_MICROSECONDS}")
        status = status_line(worker)
        systemd.notify(f"STATUS={status}")
        if (kind := status.partition(";")[0]) != before:
            before = kind
            log.info("%s", status)


def status_line(worker: Worker) -> str:
    """For systemctl and the log: what it does, or what it lacks."""
    address = worker.config.broker.address
    if not worker.ready:
        return f"{worker.node} waits for the broker at {address}: {worker.problem or 'connecting'}"
    agent, load = worker.agent, worker.agent.load()
    return (
        f"{worker.node} serves {worker.config.site} over {address}; {len(agent.shelf.ready)} slices warm, "
        f"{agent.counters.get('answered', 0) + agent.counters.get('forwarded', 0)} frames run, {load.busy:.0%} busy"
    )


@contextlib.contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`; only the main thread may ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
