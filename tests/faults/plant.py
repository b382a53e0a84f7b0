"""A site under a supervisor, as systemd with Restart=always is one: what is killed comes back by itself."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.brokers import Broker
from tests.e2e.site import CAMERA, CLOUD, EDGE, MODEL, Site, environment
from tests.faults.frames import Frames, Given, Tally, judge
from tests.faults.record import ROOT
from tests.faults.witness import Witness

from splitbus_demo.line import Link
from splitbus_demo.relay import Relay

FPS: Final = 10.0
DEADLINE_S: Final = 0.5
SLOWDOWN: Final = 90.0
"""The camera alone takes some 110 ms for a frame; over the bus it is a third of that."""

RESTART_S: Final = 0.3
"""Between a death and the supervisor's new start."""

NEAR: Final = Link(up_mbit=200, down_mbit=200, delay_ms=1)
"""The camera's line."""

FAR: Final = Link(up_mbit=1000, down_mbit=1000, delay_ms=6)
"""The line of the worker that is second best."""

TOLD: Final = 300
"""Bytes of a message that a timeline shows."""

SETTINGS: Final = """\
[planner]
codecs = ["raw", "zstd"]
"""
"""The product's own patience. Codecs that lose nothing, so that an answer to another frame is told from a rounding."""


@dataclass
class Plant(Site):
    """A Site whose processes are restarted when they die, with a camera that is a process as well."""

    seed: int = 0
    fps: float = FPS
    deadline_s: float = DEADLINE_S

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config.write_text(f'site = "{self.name}"\nstate_dir = "gateway"\n{SETTINGS}')
        self.relay.set(NEAR)
        self.witness = Witness(self.broker, self.name)
        self.far = Relay((self.broker.host, self.broker.port), FAR)
        self.random = random.Random(self.seed)
        self.begun = time.monotonic()
        self.is_used = False
        """By an earlier test."""
        self.starts: dict[str, int] = {}
        self.frames: list[Frames] = []
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self._closing = threading.Event()
        self._lock = threading.RLock()
        self._supervisor = threading.Thread(target=self._supervise, name="test-supervisor", daemon=True)
        self._supervisor.start()

    # Programs

    def start(self, node: str, *arguments: object, log_level: str = "info") -> None:
        """A splitbus command that is started again whenever it ends."""
        self._commands[node] = (
            [sys.executable, "-P", "-m", "splitbus_cli", "--log-level", log_level, *map(str, arguments)], environment()
        )  # fmt: skip
        self._launch(node)

    def start_workers(self, best: str) -> None:
        """An edge and a cloud worker; all but the best are behind the far line."""
        for node, tier in ((EDGE, "edge"), (CLOUD, "cloud")):
            line = self.broker if node == best else self.far
            self.start_worker(node, tier, f"--broker=mqtt://{line.host}:{line.port}")

    def start_second_gateway(self) -> None:
        """One with a registry and a key of its own, as somebody might set up who knows nothing of the first."""
        config = self.folder / "second.toml"
        if not config.exists():
            config.write_text(f'site = "{self.name}"\nnode = "gateway2"\nstate_dir = "gateway2"\n{SETTINGS}')
            samples = self.folder / "samples.npz"
            done = self.splitbus("model", "add", MODEL, self.model, "--samples", samples, "--config", config)
            assert done.returncode == 0, done.stderr
        self.start("gateway2", "gateway", "--config", config, *self.options)

    def start_camera(self, device: str = CAMERA, *, name: str = "", at: Broker | Relay | None = None) -> Frames:
        """A camera's process, unsupervised: its frames go on where those of an earlier life ended."""
        line = at or self.relay
        name = name or device
        frames = next((one for one in self.frames if one.path.stem == name), None) or Frames(
            self.folder / f"{name}.jsonl"
        )
        if frames not in self.frames:
            self.frames.append(frames)
        options = {
            "model": self.model, "broker": f"mqtt://{line.host}:{line.port}", "site": self.name,
            "device": device, "deadline": self.deadline_s, "fps": self.fps, "slowdown": SLOWDOWN / self.width,
            "store": self.folder / name, "log": frames.path, "first": frames.next or 1 + 1_000_000 * len(self.frames),
        }  # fmt: skip
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "tests.faults.camera", *(f"--{key}={text}" for key, text in options.items())]
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment(PYTHONPATH=path))
        return frames

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """In order unless another signal is given, and not started again."""
        self._commands.pop(name, None)
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(20)

    def strike(self, name: str, number: signal.Signals = signal.SIGKILL) -> float:
        """Send a signal, and say when; with SIGKILL the process is dead by then."""
        process = self.processes[name]
        at = time.monotonic()
        process.send_signal(number)
        return at

    def pause(self, least: float, most: float) -> None:
        """Any moment of the frames' rhythm."""
        time.sleep(self.random.uniform(least, most))

    def _launch(self, node: str) -> None:
        command, env = self._commands[node]
        self.starts[node] = self.starts.get(node, 0) + 1
        with self._lock, self.log(node).open("ab") as log:
            self.processes[node] = subprocess.Popen(command, stdout=log, stderr=log, env=env)

    def _supervise(self) -> None:
        while not self._closing.wait(0.02):
            for node in list(self._commands):
                process = self.processes.get(node)
                if process is not None and process.poll() is not None and not self._closing.wait(RESTART_S):
                    self._launch(node)

    # What the camera got

    @property
    def log_of_frames(self) -> Frames:
        """The first camera's."""
        return self.frames[0]

    def answered(self, what: str, since: float, fits: Any, seconds: float) -> Given:
        """The first answer since then that fits."""
        frames = self.log_of_frames
        return frames.wait(what, lambda: frames.first(since, fits), seconds, self.tale)

    def steady(self, route: tuple[str, ...], seconds: float = 40.0, frames: int = 5) -> None:
        """Return once the newest answers came along this route."""
        begun = time.monotonic()
        log = self.log_of_frames

        def settled() -> bool:
            newest = log.since(begun)[-frames:]
            return len(newest) == frames and all(one.route == route for one in newest)

        log.wait(f"{frames} frames in a row along {route}", settled, seconds, self.tale)

    def tale(self) -> str:
        """For a failed test."""
        lines = [f"seed {self.seed}"]
        lines += [f"plan {plan.epoch}: {[s.node for r in plan.routes[:1] for s in r]} {plan.reason}"
                  for plan in self.plans()[-8:]]  # fmt: skip
        lines += [f"decision: {one.why}; blocked {one.blocked}" for one in self.decisions()[-2:]]
        for one in self.log_of_frames.given[-25:]:
            lines.append(f"frame {one.index}: {one.route} {one.seconds * 1e3:.0f} ms x{one.attempts} {one.reason}")
        lines += [f"--- {node}\n{self._tail(node)[-1200:]}" for node in self.processes]
        return "\n".join(lines)

    def timeline(self, since: float) -> str:
        """What was said on the bus and what became of the frames since then, in order: why something took so long."""
        lines = [(said.at, f"{said.topic.split('/', 2)[-1]}: {said.payload[:TOLD].decode(errors='replace')}")
                 for said in self.witness.since(since)]  # fmt: skip
        lines += [(one.at, f"frame {one.index} of {one.asked - since:+.3f}: {one.route} x{one.attempts} {one.reason}")
                  for one in self.log_of_frames.since(since)]  # fmt: skip
        return "\n".join(f"{at - since:+.3f} {line}" for at, line in sorted(lines))

    def judge(self, excused: Any = ()) -> Tally:
        """Every frame asked so far, a second later; cameras end."""
        time.sleep(2 * self.deadline_s)
        for name in [name for name in self.processes if name not in self._commands]:
            self.end(name)
        return judge(self.frames, self.model, self.deadline_s, excused)

    # For tests that share a site

    def renew(self, seed: int) -> None:
        """As a test may expect it, whatever the one before left; what went before counts no more."""
        self.seed, self.random = seed, random.Random(seed)
        self.begun = time.monotonic() if self.is_used else self.begun
        self.is_used = True
        if not self.broker.running():
            self.broker.start()
        self._proceed()
        if self.processes[CAMERA].poll() is not None:
            self.start_camera()
        self.restore()
        self.starts = {}

    def restore(self) -> None:
        """Return once frames go the best way."""
        self.steady(EDGE_ROUTE)

    def verdict(self, excused: Any = ()) -> Tally:
        """Every frame asked since the site was renewed, of the first test since its start; cameras go on."""
        until = time.monotonic()
        time.sleep(2 * self.deadline_s)
        return judge(self.frames, self.model, self.deadline_s, excused, since=self.begun, until=until)

    def _proceed(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._closing.set()
        self._supervisor.join()
        self._proceed()
        super().close()
        self.far.close()
        self.witness.close()


EDGE_ROUTE: Final = (CAMERA, EDGE)
CLOUD_ROUTE: Final = (CAMERA, CLOUD)


@contextlib.contextmanager
def plant(broker: Broker, folder: Path, seed: int, *, width: int = 1, best: str = EDGE) -> Iterator[Plant]:
    """A site that starts: a gateway that knows the model, two workers of which `best` is near, and a camera."""
    made = Plant(broker, folder, f"f{secrets.token_hex(4)}", seed=seed, width=width)
    try:
        made.start_workers(best)
        made.register()
        made.start_gateway()
        made.wait_ready("gateway", EDGE, CLOUD)
        made.start_camera()
        yield made
    finally:
        made.close()


__all__ = ["CAMERA", "CLOUD", "CLOUD_ROUTE", "EDGE", "EDGE_ROUTE", "Plant", "plant"]
