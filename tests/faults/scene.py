"""A site for fault tests: all nodes are processes, cameras too, each behind its own link where a test wants one."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.brokers import Broker
from tests.e2e.camera import DEADLINE_S, SLOWDOWN
from tests.e2e.site import CAMERA, CLOUD, EDGE, GOOD, Site, environment, serving, wait_for
from tests.faults.nat import Nat
from tests.faults.scene_frames import CODECS, Answered, Log, Notebook, Verdict, judge

from splitbus_demo.line import Link
from splitbus_demo.relay import Relay
from splitbus_schemas import messages as m
from splitbus_schemas import topics

FPS = 10.0
STEADY = 5
"""So many frames in a row over the bus, along the plan's first route, are service restored."""

WIRED = Link(up_mbit=1000, down_mbit=1000, delay_ms=0.5)
"""The link of whoever is no camera: a worker's must not be what makes another one as good."""

CREW = ((EDGE, "edge", ()), (CLOUD, "cloud", ("--slowdown=15",)))
"""Workers of which one is clearly the better."""

END_SECONDS = 3.0
"""For frames that are out to be answered before a camera's log is judged."""

PROGRAM = Path(__file__).with_name("scene_camera.py")


@dataclass
class Scene(Site):
    """A site whose nodes get an environment of their own, and whose cameras are processes."""

    env: dict[str, dict[str, str]] = field(default_factory=dict)
    """By node, beside the usual."""
    links: dict[str, Relay] = field(default_factory=dict)
    nats: dict[str, Nat] = field(default_factory=dict)
    _notebooks: dict[str, Notebook] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        codecs = json.dumps(list(CODECS))
        self.config.write_text(f"{self.config.read_text()}codecs = {codecs}\n")

    def start(self, node: str, *arguments: object, log_level: str = "info") -> None:
        command = [sys.executable, "-P", "-m", "splitbus_cli", "--log-level", log_level, *map(str, arguments)]
        self._launch(node, command, stdin=subprocess.DEVNULL)

    def _launch(self, node: str, command: Sequence[str], *, stdin: int) -> None:
        with self.log(node).open("ab") as log:
            self.processes[node] = subprocess.Popen(
                command, stdin=stdin, stdout=log, stderr=log, env=environment(**self.env.get(node, {}))
            )

    def link(self, node: str) -> Relay:
        """The node's own link to the broker; made when it is first asked for."""
        if node not in self.links:
            is_camera = node not in (EDGE, CLOUD, "gateway")
            self.links[node] = Relay((self.broker.host, self.broker.port), GOOD if is_camera else WIRED)
        return self.links[node]

    def nat(self, node: str) -> Nat:
        """The node's own router; made when it is first asked for."""
        if node not in self.nats:
            self.nats[node] = Nat((self.broker.host, self.broker.port))
        return self.nats[node]

    def url(self, node: str) -> str:
        """Where the node finds the broker."""
        way = self.links.get(node) or self.nats.get(node) or self.broker
        return f"mqtt://{way.host}:{way.port}"

    def start_worker(self, node: str, tier: str, *arguments: object) -> None:
        super().start_worker(node, tier, f"--broker={self.url(node)}", *arguments)

    def start_gateway(self) -> None:
        self.start("gateway", "gateway", "--config", self.config, *self.options, f"--broker={self.url('gateway')}")

    def play(
        self,
        device: str = CAMERA,
        *,
        fps: float = FPS,
        deadline: float = DEADLINE_S,
        live: bool = False,
        durable: Mapping[str, Any] | None = None,
        store: Path | None = None,
        **session: Any,
    ) -> None:
        """Begin to take frames with a camera of this name; a test may have thrown away what its last life wrote."""
        self._notebooks.pop(device, None)
        folder = store or self.folder / device
        told = {"broker": self.url(device), "site": self.name, "device": device, "store": str(folder)}
        options = {
            "model": str(self.model), "out": str(self.notes(device)), "fps": fps, "live": live,
            "durable": dict(durable) if durable else None,
            "session": {**told, "deadline": deadline, "slowdown": SLOWDOWN, **session},
        }  # fmt: skip
        command = [sys.executable, "-P", str(PROGRAM), json.dumps(options)]
        root = str(PROGRAM.parents[2])
        paths = [root, *(path for path in self.env.get(device, {}).get("PYTHONPATH", "").split(":") if path)]
        self.env[device] = {**self.env.get(device, {}), "PYTHONPATH": ":".join(dict.fromkeys([*paths, *sys.path[1:]]))}
        self._launch(device, command, stdin=subprocess.PIPE)

    def end(self, device: str = CAMERA) -> Log:
        """Let a camera finish as its program would; everything it wrote."""
        process = self.processes.pop(device)
        process.communicate(timeout=20)
        assert process.returncode == 0, self._tail(device)
        return self.seen(device)

    def notes(self, device: str) -> Path:
        return self.folder / f"{device}.jsonl"

    def seen(self, device: str = CAMERA, since: float = 0.0) -> Log:
        """What a camera wrote so far, of frames asked since then."""
        notebook = self._notebooks.setdefault(device, Notebook(self.notes(device)))
        return notebook.read().since(since)

    def verdict(self, device: str = CAMERA, *, deadline: float = DEADLINE_S, since: float = 0.0) -> Verdict:
        """On the frames that a camera asked since then; it may still play."""
        until = time.monotonic()
        wait_for("frames are answered", lambda: not judge(self.seen(device, since), deadline, until=until).lost or
                 time.monotonic() > until + END_SECONDS)  # fmt: skip
        return judge(self.seen(device, since), deadline, until=until)

    # What a test waits for

    def restored(
        self, device: str = CAMERA, *, after: float, seconds: float = 30.0, route: Sequence[str] = ()
    ) -> float:  # fmt: skip
        """Seconds from `after` until the first of some frames in a row along `route`, or where the plan says."""

        def found() -> Answered | None:
            answers = sorted(self.seen(device, after).answers, key=lambda answer: answer.asked)
            runs = zip(*(answers[place:] for place in range(STEADY)), strict=False)
            wanted = (device, *route) if route else self.route(device)
            return next((run[0] for run in runs if _is_service(run, wanted)), None)

        try:
            return wait_for(f"service of {device}", found, seconds).at - after
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report(device)}") from None

    def route(self, device: str = CAMERA) -> tuple[str, ...]:
        """The nodes of the plan's first route; the device alone when it is local, or there is none."""
        plan = self.watch.last(m.Plan, topics.PLAN.at(self.name, node=device, model=self.key))
        return (device, *(stage.node for stage in plan.routes[0])) if plan and plan.routes else (device,)

    def settle_in(self, device: str = CAMERA, *, route: Sequence[str] = (EDGE,), seconds: float = 40.0) -> float:
        """Wait until the site works as it should."""
        return self.restored(device, after=time.monotonic(), seconds=seconds, route=route)

    def states(self, node: str, since: int = 0) -> list[str]:
        """What the node's status topic said."""
        return [one.state for one in self.watch.all(m.NodeStatus, topics.STATUS.at(self.name, node=node), since)]

    def has_said(self, node: str, state: str, since: int) -> bool:
        return state in self.states(node, since)

    def came_back(self, node: str, since: int) -> bool:
        """Whether the node announced itself again after it was lost."""
        states = self.states(node, since)
        return "lost" in states and states[-1] == "ready"

    def answered_alone(self, device: str, since: float) -> bool:
        """Whether a camera answered a frame by itself since then."""
        return any(answer.is_local for answer in self.seen(device, since).answers)

    def report(self, device: str = CAMERA) -> str:
        """For a failed test."""
        answers = [f"{a.index}: {'>'.join(a.route)} {a.seconds * 1e3:.0f} ms {a.plan} {a.reason}"
                   for a in self.seen(device).answers[-25:]]  # fmt: skip
        plans = [
            f"plan {plan.plan}: {[s.node for r in plan.routes[:1] for s in r]} {plan.reason}"
            for plan in self.watch.all(m.Plan, topics.PLAN.at(self.name, node=device, model=self.key))
        ]
        return "\n".join([*plans, *answers, *(f"--- {node}\n{self._tail(node)}" for node in self.processes)])

    def crashed(self) -> list[str]:
        """Processes that ended by themselves."""
        return [node for node, process in self.processes.items() if process.poll() is not None]

    def kill(self, node: str) -> None:
        stdin = self.processes[node].stdin
        super().kill(node)
        if stdin is not None:
            stdin.close()

    def close(self) -> None:
        super().close()
        for link in self.links.values():
            link.close()
        for nat in self.nats.values():
            nat.close()


@contextlib.contextmanager
def staged(
    broker: Broker,
    folder: Path,
    *,
    workers: Sequence[tuple[str, str, Sequence[str]]] = CREW,
    links: Sequence[str] = (),
    nats: Sequence[str] = (),
    env: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Scene]:
    """A site with a gateway and workers that are ready; nodes named in `links` or `nats` are behind one."""
    scene = Scene(broker, folder, f"s{secrets.token_hex(4)}")
    scene.env = {node: dict(extra) for node, extra in (env or {}).items()}
    for node in links:
        scene.link(node)
    for node in nats:
        scene.nat(node)
    with serving(scene, [(node, tier, *options) for node, tier, options in workers]):
        yield scene


def _is_service(run: Sequence[Answered], route: tuple[str, ...]) -> bool:
    in_a_row = all(later.index == sooner.index + 1 for sooner, later in pairwise(run))
    return in_a_row and len(route) > 1 and all(answer.route == route for answer in run)
