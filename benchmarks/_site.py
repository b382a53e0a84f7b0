"""A whole site for benchmarks: broker, gateway, edge and cloud worker, a camera, each a process; and who watches them.

Everything goes through public surfaces: the `splitbus` command, the topics, and InferenceSession in the camera.
"""

from __future__ import annotations

import contextlib
import functools
import json
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from _camera import frames
from _links import Kind, Line, Net, open_net

from splitbus_demo import guard
from splitbus_demo.line import Link
from splitbus_runtime.bus import Delivery
from splitbus_runtime.engine import open_session
from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.errors import BusError, DecodeError, SplitbusError
from splitbus_schemas.ids import model_key

SITE: Final = "bench"
EDGE, CLOUD = "edge1", "cloud1"
EDGE_SLOWDOWN: Final = 2.0
"""The edge is a small server; the cloud is this machine at full speed."""

CODECS: Final = ("raw", "zstd", "q8")
SAMPLES: Final = 4
START_SECONDS: Final = 60.0
PROFILE_SECONDS: Final = 180.0
"""For three nodes, one after the other; each may take a minute for a model."""
REGISTER_SECONDS: Final = 240.0
PATIENCE_SECONDS: Final = 20.0

Record = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Split:
    """What a pin says: cut and codec for each worker, by name; nothing when all is on the device."""

    cuts: tuple[tuple[int, str], ...] = ()
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.cuts:
            return "local"
        return ", ".join(
            f"{cut or 'input'}/{codec} on {node}" for (cut, codec), node in zip(self.cuts, self.nodes, strict=True)
        )

    @property
    def kind(self) -> str:
        """local, input or cut: all on the device, the frame as it is to a worker, or a real split."""
        if not self.cuts:
            return "local"
        return "input" if len(self.cuts) == 1 and self.cuts[0][0] == 0 else "cut"

    def pin(self) -> m.Pin:
        """The message."""
        cuts = [m.PlanCut(index=cut, codec=codec) for cut, codec in self.cuts]
        return m.Pin(cuts=cuts, nodes=list(self.nodes), by="benchmark")

    @classmethod
    def of(cls, cuts: Sequence[m.PlanCut], nodes: Sequence[str]) -> Split:
        """Of a plan or candidate; `nodes` without the device."""
        return cls(tuple((cut.index, cut.codec) for cut in cuts[: len(nodes)]), tuple(nodes))

    @classmethod
    def of_plan(cls, plan: m.Plan) -> Split:
        """The plan's first route."""
        return cls() if plan.is_local else cls.of(plan.cuts, [stage.node for stage in plan.routes[0]])


@dataclass(frozen=True)
class Seen:
    """A message and when it came, by time.monotonic()."""

    at: float
    message: Any


class Watch:
    """The newest message on every topic of control and status, and all plans, plan states and alerts."""

    def __init__(self, host: str, port: int) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, Seen] = {}
        self._history: list[Seen] = []
        self.bus = MqttBus(host, port, client_id="bench-watch")
        self.bus.subscribe([f"{topics.ROOT}/{SITE}/{branch}/#" for branch in ("node", "ctl", "model")], self._take)
        self.bus.wait_connected(START_SECONDS)

    def _take(self, delivery: Delivery) -> None:
        try:
            kind, _ = topics.parse_topic(delivery.topic)
            message = kind.message.from_json(delivery.payload) if kind.message and delivery.payload else None
        except DecodeError:
            return
        seen = Seen(time.monotonic(), message)
        with self._lock:
            self._newest[delivery.topic] = seen
            if isinstance(message, m.Plan | m.PlanState | m.Alert):
                self._history.append(seen)

    def newest(self, kind: type[m.M], topic: str) -> m.M | None:
        """The last message there; None when it was removed, or never there."""
        seen = self._newest.get(topic)
        return seen.message if seen and isinstance(seen.message, kind) else None

    def history(self, kind: type[m.M], since: float = 0.0) -> list[tuple[float, m.M]]:
        """All plans, plan states or alerts since then, with their times."""
        with self._lock:
            return [(seen.at, seen.message) for seen in self._history if seen.at >= since
                    and isinstance(seen.message, kind)]  # fmt: skip


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
    """The first value of `probe` that is true. Raises BusError naming what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        if time.monotonic() > deadline:
            raise BusError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return found


class Camera:
    """A camera's process and what the bus says of it."""

    def __init__(
        self, site: Site, name: str, model: Path, card: m.ModelCard, slowdown: float, deadline_s: float
    ) -> None:
        self.device, self.card = name, card
        self._site, self._watch = site, site.watch
        self._key = model_key(card.model)
        line: Line = site.net.device
        host, port = line.address
        program = Path(__file__).with_name("_camera.py")
        with (site.folder / f"{name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*line.prefix, sys.executable, str(program), f"--model={model}", f"--broker=mqtt://{host}:{port}",
                 f"--site={SITE}", f"--device={name}", f"--store={site.folder / name}", f"--slowdown={slowdown}",
                 f"--deadline={deadline_s}"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        self._answer(START_SECONDS)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, frames: int, seconds: float, least: int) -> list[Record]:
        """Frames one at a time: at most so many, and after so many seconds no more than the least."""
        found: list[Record] = self._do({"ask": {"frames": frames, "seconds": seconds, "least": least}})["answers"]
        return found

    def play(self, fps: float) -> None:
        """Begin to send so many frames a second."""
        self._do({"play": fps})

    def stop(self) -> list[Record]:
        """End that; every answer since."""
        found: list[Record] = self._do({"stop": True})["answers"]
        return found

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self.unpin()

    def _do(self, command: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.poll() is not None:
            raise BusError(f"{self.device} ended by itself: {self._site.tail(self.device)}")
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer(120.0)

    def _answer(self, seconds: float) -> dict[str, Any]:
        output = self._process.stdout
        ready = select.select([output], [], [], seconds)[0] if output is not None else []
        line = output.readline() if ready and output is not None else ""
        if not line:
            raise BusError(f"{self.device} does not answer: {self._site.tail(self.device)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    # What the bus says of it

    def topic(self, kind: topics.Topic) -> str:
        """A topic of this device and model."""
        return kind.at(SITE, node=self.device, model=self._key)

    @property
    def plan(self) -> m.Plan | None:
        """The plan that was published last."""
        return self._watch.newest(m.Plan, self.topic(topics.PLAN))

    @property
    def decision(self) -> m.Decision | None:
        """The gateway's last decision."""
        return self._watch.newest(m.Decision, self.topic(topics.DECISION))

    @property
    def active(self) -> m.Plan | None:
        """The plan, once the device follows it."""
        plan, state = self.plan, self._watch.newest(m.PlanState, self.topic(topics.PLAN_STATE))
        follows = plan and state and (state.plan, state.state) == (plan.plan, "active")
        return plan if follows else None

    def link(self, peer: str) -> m.LinkReport | None:
        """Its link to a worker, as it reports it."""
        return self._watch.newest(m.LinkReport, topics.LINK.at(SITE, node=self.device, peer=peer))

    def pin(self, split: Split) -> None:
        """Ask for a split; `wait_pinned` waits for it."""
        self._watch.bus.publish(self.topic(topics.PIN), split.pin().to_json(), qos=1, retain=True)

    def unpin(self) -> None:
        """Let the gateway choose."""
        self._watch.bus.publish(self.topic(topics.PIN), b"", qos=1, retain=True)

    def pinned(self, split: Split, seconds: float = PATIENCE_SECONDS) -> m.Plan:
        """Pin a split and return its plan once the device follows it. Raises BusError with the gateway's reason."""
        begun = time.monotonic()
        self.pin(split)

        def followed() -> m.Plan | None:
            refused = [alert for _, alert in self._watch.history(m.Alert, begun) if alert.what == "pins_failed"]
            if refused:
                raise BusError(refused[-1].reason)
            return plan if (plan := self.active) and Split.of_plan(plan) == split else None

        return wait_for(f"{self.device} follows {split}", followed, seconds)

    def chosen(self, quiet_s: float = 1.5) -> m.Plan:
        """Unpin, and return the gateway's own choice once no newer one has come for a while."""
        self.unpin()
        since = time.monotonic()

        def still() -> m.Plan | None:
            changes = [at for at, plan in self._watch.history(m.Plan) if plan.device == self.device]
            calm = time.monotonic() - max([since, *changes]) > quiet_s
            return self.active if calm else None

        return wait_for(f"{self.device} keeps a plan", still)


@dataclass
class Site:
    """The running site. `watch` sees it as an operator would."""

    folder: Path
    net: Net
    watch: Watch
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    cameras: int = 0

    def register(self, name: str, model: Path) -> m.ModelCard:
        """The model's card, once every node may know it. Raises SplitbusError."""
        samples = self.folder / f"{name}.npz"
        feeds = frames(open_session(model, threads=1).inner, SAMPLES)
        stacks: dict[str, Any] = {key: np.stack([feed[key] for feed in feeds]) for key in feeds[0]}
        np.savez(samples, **stacks)
        command = ["model", "add", name, str(model), f"--samples={samples}", f"--config={self.config}"]
        done = subprocess.run(
            _splitbus(*command), capture_output=True, text=True, check=False, timeout=REGISTER_SECONDS
        )
        if done.returncode:
            raise SplitbusError(f"{model.name} cannot be registered: {done.stderr.strip()}")
        topic = topics.MODEL.at(SITE, name=name)
        return wait_for(f"the card of {name}", functools.partial(self.watch.newest, m.ModelCard, topic))

    @property
    def config(self) -> Path:
        """The gateway's settings."""
        return self.folder / "gateway.toml"

    def start(self, node: str, *arguments: str, line: Line | None = None) -> None:
        """A `splitbus` command that stays, at the node's end of a line."""
        host, port = line.address if line else self.net.broker
        broker = (f"--broker=mqtt://{host}:{port}", f"--site={SITE}")
        command = [*(line.prefix if line else ()), *_splitbus(*arguments, *broker)]
        self.processes[node] = guard.start(command, log=self.folder / f"{node}.log")

    def wait_ready(self, *nodes: str) -> None:
        """Return once these have said that they are ready. Raises BusError with the log of one that is not."""
        for node in nodes:
            try:
                wait_for(f"{node} is ready", functools.partial(self._is_ready, node), START_SECONDS)
            except BusError as error:
                raise BusError(f"{error}: {self.tail(node)}") from None

    def _is_ready(self, node: str) -> bool:
        if self.processes[node].poll() is not None:
            raise BusError(f"{node} ended by itself")
        status = self.watch.newest(m.NodeStatus, topics.STATUS.at(SITE, node=node))
        return status is not None and status.state == "ready"

    @contextlib.contextmanager
    def camera(
        self, card: m.ModelCard, model: Path, *, slowdown: float, deadline_s: float = 60.0
    ) -> Iterator[Camera]:  # fmt: skip
        """A camera that all nodes have profiled the model for, and that measures its links; it has a plan."""
        self.cameras += 1
        camera = Camera(self, f"camera{self.cameras}", model, card, slowdown, deadline_s)
        try:
            for node in (EDGE, CLOUD, camera.device):
                profiled = functools.partial(self._profile, node, card)
                wait_for(f"{node} has profiled {card.name}", profiled, PROFILE_SECONDS)
            wait_for(f"a plan for {camera.device}", lambda: camera.active, START_SECONDS)
            yield camera
        finally:
            camera.close()

    def _profile(self, node: str, card: m.ModelCard) -> m.NodeProfile | None:
        topic = topics.PROFILE.at(SITE, node=node, model=model_key(card.model))
        return self.watch.newest(m.NodeProfile, topic)

    def tail(self, node: str) -> str:
        """The end of a node's log."""
        log = self.folder / f"{node}.log"
        return log.read_text(errors="replace").strip()[-300:] if log.is_file() else "it wrote nothing"

    def close(self) -> None:
        """End everything but broker and lines."""
        for name in reversed(list(self.processes)):
            guard.stop(self.processes.pop(name))
        self.watch.bus.close()


@contextlib.contextmanager
def open_site(
    link: Link,
    planner: str = "",
    kind: Kind | None = None,
    *,
    codecs: Sequence[str] = CODECS,
    edge_slowdown: float = EDGE_SLOWDOWN,
) -> Iterator[Site]:
    """A gateway with these planner settings (TOML lines), an edge beside the broker, a cloud behind its own link."""
    with tempfile.TemporaryDirectory(prefix="splitbus-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        net = stack.enter_context(open_net(folder, link, kind))
        site = Site(folder, net, Watch(*net.broker))
        stack.callback(site.close)
        allowed = ", ".join(f'"{codec}"' for codec in codecs)
        site.config.write_text(
            f'site = "{SITE}"\nstate_dir = "{folder / "gateway"}"\n[models]\nsamples = {SAMPLES}\n'
            f"[planner]\nmin_agreement = 0.0\ncodecs = [{allowed}]\n{planner}"
        )
        site.start("gateway", "gateway", f"--config={site.config}")
        for node, tier, slowdown, line in ((EDGE, "edge", edge_slowdown, None), (CLOUD, "cloud", 1.0, net.cloud)):
            site.start(node, "worker", f"--tier={tier}", f"--node={node}", "--threads=1", f"--slowdown={slowdown}",
                       f"--state-dir={folder / node}", line=line)  # fmt: skip
        site.wait_ready("gateway", EDGE, CLOUD)
        yield site


def _splitbus(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "splitbus_cli", *arguments]
