"""Connections of which one side knows nothing any more: a router was restarted, and its table is empty."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

import pytest
from tests.brokers import BrokerFactory
from tests.e2e.site import CAMERA, EDGE, wait_for
from tests.faults.record import Record, runs
from tests.faults.scene import Scene, staged
from tests.faults.witness import Witness

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

NATS = (CAMERA, EDGE, "gateway")
NOTICED_SECONDS = 5.0
"""From the fault until the node has noticed, has come back, and its best plan answers frames."""

DRAINED_SECONDS = 3.0
"""From the fault to the last frame that is sent to a worker that cannot be reached, or to its return."""

PRESENCE_SECONDS = 4.0
"""Until the broker tells of a worker that is silent: it looks once a second, for 1.5 times the keepalive."""


@pytest.fixture(scope="module")
def scene(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with broker_factory() as broker, staged(broker, tmp_path_factory.mktemp("scene"), nats=NATS) as scene:
        scene.play()
        scene.settle_in()
        yield scene


@pytest.fixture(scope="module")
def witness(scene: Scene) -> Iterator[Witness]:
    witness = Witness(scene.broker, scene.name)
    yield witness
    witness.close()


@pytest.mark.parametrize("node", NATS)
def test_a_connection_is_half_open(scene: Scene, witness: Witness, record: Record, node: str) -> None:
    first, took, lost, drained = time.monotonic(), list[float](), list[float](), list[float]()
    for _ in range(runs()):
        scene.settle_in()
        mark = scene.watch.mark
        begun = time.monotonic()
        wait_for("both connections", lambda: scene.nats[node].connections == 2, 10)
        scene.nats[node].forget()
        if node == EDGE:
            wait_for("its will", functools.partial(scene.has_said, EDGE, "lost", mark), 20)
            lost.append(time.monotonic() - begun)
        noticed = functools.partial(scene.came_back, node, mark)
        if node == CAMERA:  # it is back before its will is due, and nobody else learns of it
            noticed = functools.partial(scene.answered_alone, CAMERA, begun)
        wait_for(f"{node} noticed", noticed, 30)
        after = time.monotonic()
        took.append(after - begun + scene.restored(after=after, route=(EDGE,)))
        if node == EDGE:
            back = witness.status(EDGE, "ready", begun)
            assert back is not None
            drained.append(max((at for at in witness.jobs(EDGE, begun) if at < back), default=begun) - begun)
    verdict = scene.verdict(since=first)
    note = "from the fault to the best plan"
    note += f"; no frame was sent there after {1e3 * max(drained):.0f} ms" if drained else ""
    record(f"half-open connections of {node}", len(took), [1e3 * s for s in took], verdict.frames,
           len(verdict.lost), len(verdict.doubled), len(verdict.late), note)  # fmt: skip
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert max(took) <= NOTICED_SECONDS, f"{took}\n{scene.report()}"
    assert max(lost, default=0.0) <= PRESENCE_SECONDS, lost
    assert max(drained, default=0.0) <= DRAINED_SECONDS, drained
    assert scene.crashed() == []
