"""A whole site for a test: gateway and workers as processes, a camera behind a relay, and an operator who watches."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.brokers import Broker
from tests.e2e.camera import Camera, open_slow
from tests.e2e.picture_model import save_classifier, save_samples

from splitbus_demo.line import Link
from splitbus_demo.relay import Relay
from splitbus_device import InferenceSession
from splitbus_runtime.bus import Delivery
from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.ids import model_key, sha256

CAMERA, EDGE, CLOUD, MODEL = "camera1", "edge1", "cloud1", "person"
GOOD = Link(up_mbit=50, down_mbit=50, delay_ms=2)
POOR = Link(up_mbit=2, down_mbit=4, delay_ms=10)
PATIENCE_SECONDS = 30.0

PLANNER = """\
[planner]
dwell_s = 0.5
max_dwell_s = 2.0
min_agreement = 0.8
"""
"""Tests cannot wait for the usual caution."""

T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
    """The first value of `probe` that is true."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return found


class Watch:
    """Everything that passes on a site's control and status topics, oldest first."""

    def __init__(self, broker: Broker, site: str, branches: tuple[str, ...] = ("node", "ctl", "model", "ops")) -> None:
        self.site = site
        self._lock = threading.Lock()
        self._seen: list[Delivery] = []
        self.bus = MqttBus(broker.host, broker.port, client_id=f"watch-{secrets.token_hex(4)}")
        self.bus.subscribe([f"{topics.ROOT}/{site}/{branch}/#" for branch in branches], self._take, qos=1)
        self.bus.wait_connected(PATIENCE_SECONDS)

    def _take(self, delivery: Delivery) -> None:
        with self._lock:
            self._seen.append(delivery)

    @property
    def mark(self) -> int:
        """How many messages there were so far."""
        with self._lock:
            return len(self._seen)

    def all(self, kind: type[m.M], topic: str, since: int = 0) -> list[m.M]:
        """The sound messages on `topic`, which may not be a filter; removals are left out."""
        with self._lock:
            found = [delivery.payload for delivery in self._seen[since:] if delivery.topic == topic]
        return [message for payload in found if (message := _read(kind, payload))]

    def last(self, kind: type[m.M], topic: str, since: int = 0) -> m.M | None:
        found = self.all(kind, topic, since)
        return found[-1] if found else None

    def newest(self, topic: str) -> bytes:
        """The last payload on `topic`; empty when it was removed, or never there."""
        with self._lock:
            return next((delivery.payload for delivery in reversed(self._seen) if delivery.topic == topic), b"")

    def alerts(self, node: str, what: str, since: int = 0) -> list[m.Alert]:
        found = self.all(m.Alert, topics.ALERT.at(self.site, node=node), since)
        return [alert for alert in found if alert.what == what]

    def counter(self, node: str, name: str) -> int:
        stats = self.last(m.NodeStats, topics.STATS.at(self.site, node=node))
        return stats.counters.get(name, 0) if stats else 0


def _read(kind: type[m.M], payload: bytes) -> m.M | None:
    try:
        return kind.from_json(payload)
    except DecodeError:
        return None


@dataclass
class Site:
    """One site at one broker. Processes are killed and threads ended with `running`."""

    broker: Broker
    folder: Path
    name: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    width: int = 1
    """Of the model: what it takes to run goes with it."""

    def __post_init__(self) -> None:
        self.model = save_classifier(self.folder, width=self.width)
        self.state_dir = self.folder / "gateway"
        self.config = self.folder / "gateway.toml"
        self.config.write_text(f'site = "{self.name}"\nstate_dir = "gateway"\n{PLANNER}')
        self.model_hash = sha256(self.model.read_bytes())
        self.key = model_key(self.model_hash)
        self.watch = Watch(self.broker, self.name)
        self.relay = Relay((self.broker.host, self.broker.port), GOOD)
        self._cameras: list[Camera] = []

    @property
    def options(self) -> list[str]:
        return [f"--broker={self.broker.url}", f"--site={self.name}"]

    @property
    def camera(self) -> Camera:
        return self._cameras[0]

    # Programs

    def splitbus(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return splitbus(*arguments)

    def register(self) -> None:
        samples = save_samples(self.folder / "samples.npz")
        done = self.splitbus("model", "add", MODEL, self.model, "--samples", samples, "--config", self.config)
        assert done.returncode == 0, done.stderr

    def start(self, node: str, *arguments: object, log_level: str = "info") -> None:
        with self.log(node).open("ab") as log:
            command = [sys.executable, "-P", "-m", "splitbus_cli", "--log-level", log_level, *map(str, arguments)]
            self.processes[node] = subprocess.Popen(command, stdout=log, stderr=log, env=environment())

    def start_gateway(self) -> None:
        self.start("gateway", "gateway", "--config", self.config, *self.options)

    def start_worker(self, node: str, tier: str, *arguments: object) -> None:
        state = self.folder / node
        self.start(node, "worker", "--tier", tier, "--node", node, "--threads=1", "--state-dir", state,
                   *self.options, *arguments)  # fmt: skip

    def kill(self, node: str) -> None:
        """As a power cut would."""
        process = self.processes.pop(node)
        process.kill()
        process.wait()

    def log(self, node: str) -> Path:
        return self.folder / f"{node}.log"

    def wait_ready(self, *nodes: str, since: int = 0) -> None:
        for node in nodes:
            wait_for(f"{node} is ready", functools.partial(self._is_ready, node, since))

    def _is_ready(self, node: str, since: int) -> bool:
        status = self.watch.last(m.NodeStatus, topics.STATUS.at(self.name, node=node), since)
        return status is not None and status.state == "ready"

    def wait_log(self, node: str, text: str) -> None:
        wait_for(f"{text!r} in the log of {node}", lambda: text in self.log(node).read_text(), 10)

    def _tail(self, node: str) -> str:
        return self.log(node).read_text()[-1000:] if self.log(node).exists() else "it was never started"

    def mend(self, crew: Mapping[str, str]) -> None:
        """Whatever a failed test left: the link is good, nothing is pinned, and all of `crew` (node and tier) run."""
        self.relay.set(GOOD)
        self.relay.restore()
        if not self.broker.running():
            self.broker.start()
        if self.watch.newest(pin := topics.PIN.at(self.name, node=CAMERA, model=self.key)):
            self.watch.bus.publish(pin, b"", qos=1, retain=True)
        if "gateway" not in self.processes:
            self.start_gateway()
        for node, tier in crew.items():
            if node not in self.processes:
                self.start_worker(node, tier)

    def open(
        self, model: str | Path | None = None, *, host: str | None = None, port: int | None = None
    ) -> InferenceSession:  # fmt: skip
        """The camera's session, on the site's model file unless another is named."""
        url = f"mqtt://{host or self.relay.host}:{port or self.relay.port}"
        return open_slow(model or self.model, broker=url, site=self.name, device=CAMERA, store=self.folder / CAMERA)

    def open_camera(self, *, host: str | None = None, port: int | None = None) -> Camera:
        camera = Camera(self.open(host=host, port=port), self.model)
        self._cameras.append(camera)
        return camera

    # What is known

    def plans(self, since: int = 0) -> list[m.Plan]:
        return self.watch.all(m.Plan, topics.PLAN.at(self.name, node=CAMERA, model=self.key), since)

    def plan(self) -> m.Plan | None:
        plans = self.plans()
        return plans[-1] if plans else None

    def settled_plan(self) -> m.Plan:
        """The running plan, which leads over the bus."""
        plan = wait_for("a plan", self.plan)
        assert not plan.is_local, plan.reason
        return plan

    def decisions(self, since: int = 0) -> list[m.Decision]:
        return self.watch.all(m.Decision, topics.DECISION.at(self.name, node=CAMERA, model=self.key), since)

    def plan_state(self, since: int = 0) -> m.PlanState | None:
        return self.watch.last(m.PlanState, topics.PLAN_STATE.at(self.name, node=CAMERA, model=self.key), since)

    def settle(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Return once the newest frames are answered over the bus."""
        begun = self.camera.asked
        try:
            self.camera.wait("the bus answers three frames", lambda: self._flown(begun) >= 3, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None

    def _flown(self, begun: int) -> int:
        return sum(not answer.is_local for _, answer in self.camera.answers(begun))

    def story(self) -> str:
        """For a failed test: what the site decided, and what it complained of."""
        lines = [f"plan {plan.epoch}: {[s.node for r in plan.routes[:1] for s in r]} {plan.reason}"
                 for plan in self.plans()]  # fmt: skip
        decision = self.decisions()[-1:]
        lines += [f"decision: {one.why}; blocked {one.blocked}" for one in decision]
        last = self.camera.answers(max(0, self.camera.asked - 12))
        lines += [f"frame {index}: {answer.route} {answer.total_ms:.0f} ms {answer.reason}" for index, answer in last]
        lines += [f"{node}: {self._tail(node)[-400:]}" for node in self.processes]
        return "\n".join(lines)

    def close(self) -> None:
        for camera in self._cameras:
            camera.close()
        self.relay.close()
        self.watch.bus.close()
        for node in list(self.processes):
            self.kill(node)


def environment(**extra: str) -> dict[str, str]:
    """Without the caller's own settings, wide and without colours."""
    mine = {name: text for name, text in os.environ.items() if not name.startswith("SPLITBUS_")}
    return {**mine, "COLUMNS": "200", "NO_COLOR": "1", **extra}


def splitbus(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """`splitbus` to its end."""
    command = [sys.executable, "-P", "-m", "splitbus_cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment(**env))


@contextlib.contextmanager
def serving(site: Site, workers: Sequence[tuple[str, ...]] = ((EDGE, "edge"),)) -> Iterator[None]:
    """The site's gateway, which knows the model, and these workers; everything of the site is ended with the block.

    Of a worker its node, its tier and its options; they come first, and start while the model is added.
    """
    try:
        for node, tier, *options in workers:
            site.start_worker(node, tier, *options)
        site.register()
        site.start_gateway()
        site.wait_ready("gateway", *(node for node, *_ in workers))
        yield
    finally:
        site.close()


@contextlib.contextmanager
def running(
    broker: Broker, folder: Path, *, workers: tuple[tuple[str, str], ...], name: str | None = None
) -> Iterator[Site]:
    """A site with a gateway that knows the model, these workers (node and tier), and a camera that takes pictures."""
    site = Site(broker, folder, name or f"s{secrets.token_hex(4)}")
    with serving(site, workers):
        site.open_camera()
        yield site
