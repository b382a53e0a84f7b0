"""The demo's machines as processes: broker, relay, gateway, two workers, one camera."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from splitbus_demo import guard
from splitbus_demo.broker import Broker, start_broker
from splitbus_demo.line import Link
from splitbus_demo.relay_process import RelayProcess
from splitbus_runtime.bus import Delivery
from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas.errors import BusError, DecodeError
from splitbus_schemas.messages import NodeStatus
from splitbus_schemas.topics import STATUS

SITE: Final = "demo"
CAMERA: Final = "camera1"
EDGE: Final = "edge1"
CLOUD: Final = "cloud1"
START_SECONDS: Final = 30.0
"""For every process to say that it is ready; on an idle machine it takes two."""


@dataclass(frozen=True)
class Speeds:
    """How many times slower than this machine each node is made, and how many threads it may use."""

    camera: float
    edge: float
    cloud: float = 1.0


@dataclass
class Stage:
    """The running demo. `bus` watches as an operator would."""

    broker: Broker
    relay: RelayProcess
    bus: MqttBus
    folder: Path
    model: Path
    speeds: Speeds
    processes: dict[str, subprocess.Popen[bytes]]

    @property
    def answers(self) -> Path:
        """The camera's log of answers."""
        return self.folder / "answers.jsonl"

    @property
    def outputs(self) -> Path:
        """The camera's outputs."""
        return self.folder / "outputs.f32"

    def start_camera(self, *, fps: float, deadline_s: float) -> None:
        """Begin to take pictures, over the relay."""
        self._start(
            CAMERA,
            "splitbus_demo.camera",
            f"--model={self.model}",
            f"--broker=mqtt://{self.relay.host}:{self.relay.port}",
            f"--site={SITE}",
            f"--device={CAMERA}",
            f"--deadline={deadline_s}",
            f"--fps={fps}",
            f"--slowdown={self.speeds.camera}",
            f"--store={self.folder / CAMERA}",
            f"--log={self.answers}",
            f"--outputs={self.outputs}",
        )

    def start_worker(self, node: str, tier: str, slowdown: float) -> None:
        """An edge or cloud worker, straight at the broker."""
        self._splitbus(
            node,
            "worker",
            f"--tier={tier}",
            f"--node={node}",
            "--threads=1",
            f"--slowdown={slowdown}",
            f"--state-dir={self.folder / node}",
        )

    def start_gateway(self, state_dir: Path) -> None:
        """The gateway daemon."""
        self._splitbus("gateway", "gateway", f"--state-dir={state_dir}")

    def stop(self, name: str) -> None:
        """End one process in order."""
        process = self.processes.pop(name, None)
        if process is not None:
            guard.stop(process)

    def stop_all(self) -> None:
        """End all of them, the last started first."""
        for name in reversed(list(self.processes)):
            self.stop(name)

    def check(self) -> None:
        """Raises BusError naming a process that ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise BusError(f"{name} ended by itself: {_last_line(self.folder / f'{name}.log')}")

    def wait_ready(self, *nodes: str) -> None:
        """Return once these nodes have said that they are ready. Raises BusError."""
        waiting = set(nodes)

        def seen(delivery: Delivery) -> None:
            try:
                status = NodeStatus.from_json(delivery.payload)
            except DecodeError:
                return
            if status.state == "ready":
                waiting.discard(status.node)

        topic = STATUS.at(SITE, node="+")
        self.bus.subscribe(topic, seen, qos=1)
        give_up = time.monotonic() + START_SECONDS
        while waiting and time.monotonic() < give_up:
            self.check()
            time.sleep(0.05)
        self.bus.unsubscribe(topic)
        if waiting:
            name = min(waiting)
            raise BusError(f"{name} was not ready in {START_SECONDS:g} s: {_last_line(self.folder / f'{name}.log')}")

    def _splitbus(self, name: str, *arguments: str) -> None:
        broker = f"--broker=mqtt://{self.broker.host}:{self.broker.port}"
        self._start(name, "splitbus_cli", *arguments, broker, f"--site={SITE}")

    def _start(self, name: str, module: str, *arguments: str) -> None:
        command = [sys.executable, "-P", "-m", module, *arguments]
        self.processes[name] = guard.start(command, log=self.folder / f"{name}.log")


@contextmanager
def open_stage(folder: Path, model: Path, state_dir: Path, link: Link, speeds: Speeds) -> Iterator[Stage]:
    """Everything but the camera, running and ready; all ended with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker())
        relay = stack.enter_context(RelayProcess((broker.host, broker.port), link))
        bus = MqttBus(broker.host, broker.port, client_id="demo-observer")
        stack.callback(bus.close)
        bus.wait_connected(START_SECONDS)
        stage = Stage(broker, relay, bus, folder, model, speeds, {})
        stack.callback(stage.stop_all)
        stage.start_gateway(state_dir)
        stage.start_worker(EDGE, "edge", speeds.edge)
        stage.start_worker(CLOUD, "cloud", speeds.cloud)
        stage.wait_ready("gateway", EDGE, CLOUD)
        yield stage


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "it wrote nothing"
