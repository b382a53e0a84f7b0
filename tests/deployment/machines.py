"""The machines of a site with the real programs on them: gateway and workers as processes, cameras in this one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
from numpy.typing import NDArray
from tests import models
from tests.brokers import Broker
from tests.deployment.site import SITE, Site, Way
from tests.gateway.scripted import pyramid

from splitbus_device import Answer, InferenceSession
from splitbus_gateway.registry import Registry
from splitbus_runtime.bus import Delivery
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.settings import BrokerSettings
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import Message, NodeStatus, Plan
from splitbus_schemas.topics import PLAN, STATUS

PATIENCE_SECONDS: Final = 40.0
"""For processes to start, to profile and to agree on a plan, while the machine does other things."""

DEADLINE_SECONDS: Final = 2.0

SLOW: Final = 200.0
"""A camera that wants help."""

M = TypeVar("M", bound=Message)
Array = NDArray[Any]


def until(happened: Callable[[], object], what: Callable[[], object] | str, seconds: float = PATIENCE_SECONDS) -> None:
    """Return once something has happened; else fail saying what had."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.02)


class Program:
    """A `splitbus` command as a process, with its log in a file."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "splitbus_cli", *arguments],
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_log(self, words: str) -> None:
        until(lambda: words in self.log, lambda: f"{words!r} in: {self.log}")

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """In order, as systemd does."""
        self.process.terminate()
        return self.process.wait(20)


class Operator:
    """Sees everything that an operator may see at one broker."""

    def __init__(self, site: Site, broker: Broker) -> None:
        access = BrokerSettings.of(**site.access(broker, "operator", "plain"))
        self._lock = threading.Lock()
        self._newest: dict[str, bytes] = {}
        self._heard: list[Delivery] = []
        self.bus = MqttBus(
            access.host, access.port, client_id="watcher", username=access.user, password=access.read_password()
        )
        self.bus.subscribe([f"splitbus/v1/{SITE}/#", "$SYS/broker/connection/#"], self._take, qos=1)
        self.bus.wait_connected(5)

    def _take(self, delivery: Delivery) -> None:
        with self._lock:
            self._newest[delivery.topic] = delivery.payload
            self._heard.append(delivery)

    def raw(self, topic: str) -> bytes:
        """The newest message of a topic."""
        with self._lock:
            return self._newest.get(topic, b"")

    def newest(self, kind: type[M], topic: str) -> M | None:
        payload = self.raw(topic)
        return kind.from_json(payload) if payload else None

    def topics(self) -> list[str]:
        """The site's topics that were written to so far."""
        return sorted({delivery.topic for delivery in self.heard()})

    def heard(self, prefix: str = "") -> list[Delivery]:
        """All messages so far whose topic begins so, below the site."""
        with self._lock:
            return [d for d in self._heard if d.topic.startswith(f"splitbus/v1/{SITE}/{prefix}")]

    def state(self, node: str) -> str:
        status = self.newest(NodeStatus, STATUS.at(SITE, node=node))
        return status.state if status else ""

    def plan(self, device: str, model: str) -> Plan | None:
        return self.newest(Plan, PLAN.at(SITE, node=device, model=model_key(model)))


class Machines:
    """What runs at a site, ended together. `model` is registered with the gateway's `state` folder."""

    def __init__(self, site: Site, folder: Path, state: Path) -> None:
        self.site, self.folder = site, folder
        self.state = folder / "gateway-state"
        shutil.copytree(state, self.state)
        self.record = Registry(self.state).get("small")
        self.model = save_model(folder)
        self._programs: list[Program] = []

    def gateway(self, broker: Broker, way: Way = "plain", **keys: str) -> Program:
        """`splitbus gateway`; lossless codecs, so that answers are those of the model."""
        planner = '[planner]\ncodecs = ["raw", "zstd"]\n'
        return self._start("gateway", broker, way, keys, f'state_dir = "{self.state}"', after=planner)

    def worker(self, node: str, tier: str, broker: Broker, way: Way = "plain", **keys: str) -> Program:
        """`splitbus worker`."""
        state = f'state_dir = "{self.folder / node}-state"'
        return self._start("worker", broker, way, keys, f'node = "{node}"\ntier = "{tier}"\n{state}', user=node)

    @contextlib.contextmanager
    def camera(self, node: str, broker: Broker, way: Way = "plain", **keys: str) -> Iterator[Camera]:
        """The drop-in client with the model's file."""
        settings = BrokerSettings.of(**self.site.access(broker, node, way) | keys)
        with InferenceSession(
            self.model,
            one_thread(),
            broker=settings,
            device=node,
            site=SITE,
            deadline=DEADLINE_SECONDS,
            slowdown=SLOW,
            store=self.folder / f"{node}-store",
        ) as session:
            yield Camera(session, reference(self.model))

    @contextlib.contextmanager
    def operator(self, broker: Broker) -> Iterator[Operator]:
        operator = Operator(self.site, broker)
        try:
            yield operator
        finally:
            operator.bus.close()

    def close(self) -> None:
        for program in self._programs:
            program.process.kill()
            program.process.wait(10)

    def _start(
        self,
        command: str,
        broker: Broker,
        way: Way,
        keys: dict[str, str],
        settings: str,
        *,
        user: str = "",
        after: str = "",
    ) -> Program:
        access = self.site.access(broker, user or command, way) | keys
        folder = self.folder / (user or command)
        folder.mkdir(exist_ok=True)
        config = folder / "settings.toml"
        lines = [
            f'site = "{SITE}"',
            settings,
            "[broker]",
            *(f'{key} = "{value}"' for key, value in access.items()),
            after,
        ]
        config.write_text("\n".join(lines))
        program = Program(folder, command, "--config", str(config))
        self._programs.append(program)
        return program


class Camera:
    """A session with the model it stands in for."""

    def __init__(self, session: InferenceSession, plain: ort.InferenceSession) -> None:
        self.session = session
        self._plain = plain
        self._frames = np.random.default_rng(3)

    def shoot(self) -> Answer:
        """A frame; its answer is the model's."""
        frame = self._frames.standard_normal(self.session.get_inputs()[0].shape).astype(np.float32)
        (given,) = self.session.run(None, {"x": frame})
        (expected,) = self._plain.run(None, {"x": frame})
        answer = self.session.last_answer
        assert answer is not None
        if answer.is_local:
            assert given.tobytes() == expected.tobytes()
        else:
            np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)
        return answer

    def follow(self, *route: str) -> Answer:
        """Frames until one is answered along this route."""
        answers: list[Answer] = []

        def arrived() -> bool:
            answers.append(self.shoot())
            return answers[-1].route == route

        until(arrived, lambda: f"{' > '.join(route)}; the last: {_words(answers[-1])}")
        return answers[-1]


def _words(answer: Answer) -> str:
    return f"{' > '.join(answer.route)}, plan {answer.plan}, {answer.total_ms:.0f} ms, {answer.reason or 'as planned'}"


def save_model(folder: Path) -> Path:
    return models.save(pyramid(), folder, "small.onnx")


def reference(model: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(model), one_thread(), providers=["CPUExecutionProvider"])


def one_thread() -> ort.SessionOptions:
    """With it, emulated speed is exact."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options
