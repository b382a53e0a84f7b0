"""The daemon: runs a worker until it is told to stop, and tells systemd how it does where there is one."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Final

from splitbus_runtime.service import serve
from splitbus_worker.settings import WorkerConfig
from splitbus_worker.worker import Worker

log = logging.getLogger(__name__)

ECHO_SECONDS: Final = 10.0
"""A heartbeat that came back within this time feeds the watchdog, unless a frame hangs; one is sent every second."""


def run(config: WorkerConfig, *, stop: threading.Event | None = None) -> int:
    """Serve until SIGTERM, SIGINT or `stop`; gives the exit code. Raises ConfigError.

    A broker that is not there, or refuses us, is no reason to end: it is tried again and the status says why.
    """
    worker = Worker(config)
    worker.start()
    try:
        serve(WorkerService(worker), stop=stop)
    finally:
        worker.stop()
    log.info("%s stopped", worker.node)
    return 0


@dataclass(frozen=True)
class WorkerService:
    """A running worker as `serve` sees it."""

    worker: Worker

    @property
    def ready(self) -> bool:
        return self.worker.ready

    @property
    def healthy(self) -> bool:
        fresh = time.monotonic() - self.worker.agent.last_echo < ECHO_SECONDS
        return fresh and self.worker.verdict.state != "stuck"

    @property
    def status(self) -> str:
        worker, address = self.worker, self.worker.config.broker.address
        if not worker.ready:
            return f"{worker.node} waits for the broker at {address}: {worker.problem or 'connecting'}"
        agent, load = worker.agent, worker.agent.load()
        frames = agent.counters.get("answered", 0) + agent.counters.get("forwarded", 0)
        return (
            f"{worker.node} serves site {worker.config.site} at {address}; {worker.verdict}; "
            f"{len(agent.shelf.ready)} slices warm, {frames} frames run, {load.busy:.0%} busy"
        )
