"""Somebody on the bus who writes down when what was said: independent of all nodes, its clock is the machine's."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.brokers import Broker

from splitbus_runtime.bus import Delivery
from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas import messages as m
from splitbus_schemas import topics


@dataclass(frozen=True, slots=True)
class Said:
    """A message, and when it came."""

    at: float
    topic: str
    payload: bytes
    retained: bool


class Witness:
    """What passes on a site's status, plan and statistics topics, oldest first."""

    def __init__(self, broker: Broker, site: str) -> None:
        self.site = site
        self._lock = threading.Lock()
        self._said: list[Said] = []
        self._bus = MqttBus(broker.host, broker.port, client_id=f"witness-{secrets.token_hex(4)}")
        filters = [f"{topics.ROOT}/{site}/{branch}/#" for branch in ("node", "ctl")]
        self._bus.subscribe(filters, self._take, qos=1)
        self._jobs: dict[str, list[float]] = {}
        self._bus.subscribe(topics.JOB.at(site, node="+", device="+"), self._take_job)
        self._bus.wait_connected(10)

    def _take_job(self, delivery: Delivery) -> None:
        """Jobs name their plan in user properties, probes do not."""
        fields = topics.JOB.match(delivery.topic)
        if fields and delivery.user:
            self._jobs.setdefault(fields["node"], []).append(time.monotonic())

    def jobs(self, node: str, since: float) -> list[float]:
        """When jobs were sent to a worker since then."""
        return [at for at in list(self._jobs.get(node, ())) if at >= since]

    def _take(self, delivery: Delivery) -> None:
        said = Said(time.monotonic(), delivery.topic, delivery.payload, delivery.retain)
        with self._lock:
            self._said.append(said)

    def on(self, topic: str, since: float = 0.0) -> list[Said]:
        """What was said there since then, not what was retained before."""
        with self._lock:
            return [said for said in self._said if said.topic == topic and said.at >= since and not said.retained]

    def since(self, at: float) -> list[Said]:
        """All that was said since then."""
        with self._lock:
            return [said for said in self._said if said.at >= at]

    def status(self, node: str, state: str, since: float) -> float | None:
        """When the node was first said to be in this state."""
        return self._first(topics.STATUS.at(self.site, node=node), m.NodeStatus, lambda s: s.state == state, since)

    def plan(self, device: str, model: str, fits: Callable[[m.Plan], bool], since: float) -> float | None:
        """When the first plan that fits was published."""
        return self._first(topics.PLAN.at(self.site, node=device, model=model), m.Plan, fits, since)

    def alerts(self, node: str, since: float = 0.0) -> list[m.Alert]:
        return [m.Alert.from_json(said.payload) for said in self.on(topics.ALERT.at(self.site, node=node), since)]

    def _first(self, topic: str, kind: type[m.M], fits: Callable[[m.M], bool], since: float) -> float | None:
        for said in self.on(topic, since):
            if said.payload and fits(kind.from_json(said.payload)):
                return said.at
        return None

    def close(self) -> None:
        self._bus.close()
