"""Wall clocks that jump by an hour, in both directions, at every node while frames flow; and at the broker."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.broker_setup import Setup, simple_setup
from tests.brokers import BrokerFactory, LocalBroker, broker_kind
from tests.e2e.site import CAMERA, CLOUD, EDGE, wait_for
from tests.faults.clocks import Clock, FakeTime
from tests.faults.record import Record, runs
from tests.faults.scene import Scene, staged

from splitbus_schemas import messages as m
from splitbus_schemas import topics

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

NODES = (CAMERA, EDGE, CLOUD, "gateway")
HOUR = 3600
ROUNDS = 17
"""Of three jumps each, in a soak: some 50 of them."""

STAYS_SECONDS = 2.5
"""libfaketime looks once a second, and statistics are sent as often."""


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clock]:
    folder = tmp_path_factory.mktemp("clocks")
    return {**{node: Clock(folder, node) for node in NODES}, "broker": FakeTime(folder, "broker")}


@pytest.fixture(scope="module")
def scene(
    broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory, clocks: dict[str, Clock]
) -> Iterator[Scene]:
    env = {node: clocks[node].env for node in NODES}
    with broker_factory() as broker, staged(broker, tmp_path_factory.mktemp("scene"), env=env) as scene:
        scene.play()
        scene.settle_in()
        yield scene


def wall_clock(scene: Scene, node: str) -> dt.datetime | None:
    """What the node believes, from the newest status that it wrote."""
    status = scene.watch.last(m.NodeStatus, topics.STATUS.at(scene.name, node=node))
    return dt.datetime.fromisoformat(status.since) if status and status.since else None


@pytest.mark.parametrize("node", NODES)
def test_a_clock_jumps(scene: Scene, record: Record, clocks: dict[str, Clock], node: str) -> None:
    """Nothing happens: deadlines, plans, presence and patience go by clocks that do not jump."""
    scene.settle_in()
    first, mark = time.monotonic(), scene.watch.mark
    for hours in (1, -1, 0) * runs(1, ROUNDS):
        clocks[node].jump(hours * HOUR)
        time.sleep(STAYS_SECONDS)
    verdict = scene.verdict(since=first)
    record(f"clock of {node} jumps by an hour, back, and forth", runs(1, ROUNDS), [], verdict.frames, len(verdict.lost),
           len(verdict.doubled), len(verdict.late), "service never stopped")  # fmt: skip
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert verdict.local == 0, f"frames went on over the bus\n{scene.report()}"
    assert not scene.has_said(node, "lost", mark)
    assert scene.crashed() == []


def test_the_jumps_are_real(scene: Scene, clocks: dict[str, Clock]) -> None:
    """A worker that is started an hour ahead says so: the library works, and nobody minds."""
    clocks[CLOUD].jump(HOUR)
    scene.kill(CLOUD)
    mark = scene.watch.mark
    scene.start_worker(CLOUD, "cloud", "--slowdown=15")
    scene.wait_ready(CLOUD, since=mark)
    said = wall_clock(scene, CLOUD)
    clocks[CLOUD].jump(0)
    assert said is not None
    ahead = (said - dt.datetime.now(dt.UTC)).total_seconds()
    assert HOUR - 30 < ahead < HOUR + 30
    scene.settle_in()


def test_the_brokers_clock_jumps(tmp_path: Path, record: Record, clocks: dict[str, Clock]) -> None:
    """Message expiry is counted by the broker; a frame's own budget is what decides."""
    if broker_kind() != "binary":
        pytest.skip("the broker runs in a container: its clock is the engine's")
    folder = tmp_path / "broker"
    folder.mkdir()
    broker = JumpingBroker(simple_setup(), folder, clocks["broker"])
    broker.start()
    try:
        with staged(broker, tmp_path) as scene:
            scene.play()
            scene.settle_in()
            first = time.monotonic()
            for hours in (1, -1, 0) * runs(1, ROUNDS):
                clocks["broker"].jump(hours * HOUR)
                time.sleep(STAYS_SECONDS)
            verdict = scene.verdict(since=first)
            record(
                "clock of the broker jumps by an hour, back, and forth",
                runs(1, ROUNDS),
                [],
                verdict.frames,
                len(verdict.lost),
                len(verdict.doubled),
                len(verdict.late),
                f"{verdict.local} frames were answered locally",
            )
            assert verdict.is_clean, f"{verdict}\n{scene.report()}"
            scene.settle_in()
            assert scene.crashed() == []
    finally:
        broker.kill()


class JumpingBroker(LocalBroker):
    """A Mosquitto whose clock is the test's."""

    def __init__(self, setup: Setup, folder: Path, clock: Clock) -> None:
        super().__init__(setup, folder)
        self._clock = clock

    def launch(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._clock.env.items():
                patch.setenv(name, value)
            super().launch()


def test_the_broker_sees_the_jumps(tmp_path: Path, clocks: dict[str, Clock]) -> None:
    """Its log has the time of day."""
    if broker_kind() != "binary":
        pytest.skip("the broker runs in a container: its clock is the engine's")
    clocks["broker"].jump(HOUR)
    broker = JumpingBroker(simple_setup("log_timestamp_format %s"), tmp_path, clocks["broker"])
    broker.start()
    broker.stop()
    clocks["broker"].jump(0)
    stamps = [int(line.partition(":")[0]) for line in broker.log().splitlines() if line.partition(":")[0].isdecimal()]
    wait_for("a time in its log", lambda: stamps, 1)
    assert HOUR - 30 < max(stamps) - time.time() < HOUR + 30
