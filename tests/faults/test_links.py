"""Links that are cut and come back, and connections of which one side knows nothing any more."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.brokers import BrokerFactory
from tests.e2e.site import CAMERA, EDGE
from tests.faults.record import Record, runs
from tests.faults.scene import Scene, staged

from splitbus_demo.relay import CutMode

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

RESTORED_SECONDS = 2.0
"""From the repair until the best plan answers frames again."""

LINKS = (CAMERA, EDGE, "gateway")


@pytest.fixture(scope="module")
def scene(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A camera, an edge worker and a gateway that are each behind a link of their own."""
    with broker_factory() as broker, staged(broker, tmp_path_factory.mktemp("scene"), links=LINKS) as scene:
        scene.play()
        scene.settle_in()
        yield scene


@pytest.mark.parametrize("mode", ["reset", "blackhole"])
@pytest.mark.parametrize("node", LINKS)
def test_a_link_is_cut(scene: Scene, record: Record, node: str, mode: CutMode) -> None:
    scene.settle_in()
    first, took = time.monotonic(), list[float]()
    for seconds in ([5.0, 8.0, 12.0, 20.0] * 3)[: runs(1, 12)]:
        scene.links[node].cut(mode)
        time.sleep(seconds)
        scene.links[node].restore()
        took.append(scene.restored(after=time.monotonic(), route=(EDGE,)))
    verdict = scene.verdict(since=first)
    record(f"link of {node} cut for 5 to 20 s ({mode})", len(took), [1e3 * s for s in took], verdict.frames,
           len(verdict.lost), len(verdict.doubled), len(verdict.late), "from the repair to the best plan")  # fmt: skip
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert max(took) <= RESTORED_SECONDS, scene.report()
    assert scene.crashed() == []
