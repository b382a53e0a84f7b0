"""What an operator sees of the demo: decisions, links and streams from the bus, answers from the camera's log."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splitbus_demo.stage import SITE
from splitbus_runtime.bus import Bus, Delivery
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.messages import Alert, Decision, LinkReport, NodeStats, PlanState, StreamStats
from splitbus_schemas.topics import ALERT, DECISION, LINK, PLAN_STATE, STATS, STREAM, parse_topic


@dataclass(frozen=True)
class Seen:
    """Something that came by, and when, by time.monotonic()."""

    at: float
    what: Any


@dataclass
class Observer:
    """Collects what passes. Written on the bus's thread, read on any."""

    decisions: list[Seen] = field(default_factory=list)
    """Those that changed a plan."""
    plan_states: list[Seen] = field(default_factory=list)
    links: dict[tuple[str, str], LinkReport] = field(default_factory=dict)
    stats: dict[str, NodeStats] = field(default_factory=dict)
    stream: StreamStats | None = None
    alerts: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, bus: Bus) -> None:
        """Subscribe to what an operator would look at."""
        wildcards = dict.fromkeys(("node", "model", "peer"), "+")
        for topic in (DECISION, LINK, STREAM, STATS, PLAN_STATE, ALERT):
            bus.subscribe(topic.at(SITE, **wildcards), self._take)

    def _take(self, delivery: Delivery) -> None:
        try:
            kind, _ = parse_topic(delivery.topic)
            message = kind.message.from_json(delivery.payload) if kind.message and delivery.payload else None
        except DecodeError:
            return
        with self.lock:
            self._keep(message)

    def _keep(self, message: object) -> None:
        now = time.monotonic()
        match message:
            case Decision(changed=True):
                if not self.decisions or self.decisions[-1].what.epoch != message.epoch:
                    self.decisions.append(Seen(now, message))
            case LinkReport():
                self.links[message.node, message.peer] = message
            case StreamStats():
                self.stream = message
            case NodeStats():
                self.stats[message.node] = message
            case PlanState():
                self.plan_states.append(Seen(now, message))
            case Alert():
                self.alerts.append(Seen(now, message))


class AnswerTail:
    """Reads the camera's log as it grows."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0
        self.records: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """The records that are new."""
        if not self._log.is_file():
            return []
        with self._log.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        fresh = [json.loads(line) for line in whole.splitlines()]
        self.records += fresh
        return fresh
