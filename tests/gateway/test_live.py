"""Live control on simulated time, from a frame's sample to the plan: steps are acted on at once, jitter is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gateway.camera import Camera, Weather
from tests.gateway.scripted import SITE, Node, Site, register

from splitbus_gateway.problem import Limits
from splitbus_gateway.slicing import SliceBook
from splitbus_gateway.stream import StreamSettings
from splitbus_runtime.bus import MemoryBroker
from splitbus_schemas import messages as m
from splitbus_schemas import topics

HIGH, LOW, TIE = 30.0, 6.0, 10.5
"""Mbit/s: at HIGH the first cut wins, at LOW a later one, at TIE both take as long."""

ACTED_S = 1.0
CAMERA_MS, EDGE_MS, CLOUD_MS = 500.0, 10.0, 5.0


class Scene:
    """A camera whose last layers are what it cannot do, an edge worker, and a cloud worker when asked for."""

    def __init__(self, book: SliceBook, model: str, folder: Path, weather: Weather, peers: list[str]) -> None:
        limits = Limits(codecs=frozenset({"raw"}))
        self.site = Site(MemoryBroker(), book, folder, StreamSettings(limits=limits))
        self.model = model
        device = Node(self.site.broker, "cam1", "device", CAMERA_MS)
        device.shares = [0.0, 0.1, 0.9, 0.0]
        self.workers = {
            name: Node(self.site.broker, name, name[:-1], EDGE_MS if name == "edge1" else CLOUD_MS) for name in peers
        }
        device.wants(model)
        self.site.run(1)
        self.camera = Camera(self.site, device, peers, weather, lambda: self.plan)

    @property
    def plan(self) -> m.Plan:
        return self.site.plan(self.model)

    @property
    def decision(self) -> m.Decision:
        return self.site.decision(self.model)

    @property
    def cut(self) -> int:
        return self.plan.cuts[0].index

    def until_another_plan(self, patience_s: float) -> float:
        epoch = self.plan.epoch
        return self.camera.run(patience_s, until=lambda: self.plan.epoch > epoch)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> tuple[SliceBook, str]:
    registry = register(tmp_path_factory.mktemp("registry"), "person")
    return SliceBook(registry), registry.get("person").model


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("peers", [["edge1"], ["edge1", "cloud1"]])
@pytest.mark.parametrize(
    ("before", "after", "cuts", "verb"), [(HIGH, LOW, (4, 6), "fell"), (LOW, HIGH, (6, 4), "rose")]
)
def test_a_step_of_five_is_acted_on_within_a_second(
    book: tuple[SliceBook, str], tmp_path: Path, before: float, after: float, cuts: tuple[int, int], verb: str,
    peers: list[str], seed: int,
) -> None:  # fmt: skip
    step_at = float("inf")
    weather = Weather(lambda now: before if now < step_at else after, jitter=0.2, outliers=0.01, seed=seed)
    scene = Scene(*book, tmp_path, weather, peers)
    scene.camera.run(15)
    assert scene.cut == cuts[0], scene.plan.reason
    step_at = scene.site.now
    assert scene.until_another_plan(3.0) <= ACTED_S
    scene.camera.run(1.0)
    assert scene.cut == cuts[1]
    assert scene.plan.reason.startswith("uplink cam1>")
    assert f"1 {verb} from " in scene.plan.reason
    assert scene.decision.cause == "link"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mbit", [TIE, 1.15 * TIE])
def test_ten_minutes_of_jitter_and_outliers_where_two_plans_tie_cause_at_most_one_change(
    book: tuple[SliceBook, str], tmp_path: Path, mbit: float, seed: int
) -> None:
    scene = Scene(*book, tmp_path, Weather(lambda _: mbit, jitter=0.2, outliers=0.01, seed=seed), ["edge1"])
    scene.camera.run(10)
    epoch = scene.plan.epoch
    scene.camera.run(600)
    assert scene.plan.epoch <= epoch + 1
    assert scene.camera.frames > 5000


def test_load_moves_a_plan_after_two_seconds_and_is_named_as_the_cause(
    book: tuple[SliceBook, str], tmp_path: Path
) -> None:
    scene = Scene(*book, tmp_path, Weather(lambda _: HIGH), ["edge1", "cloud1"])
    edge, cloud = scene.workers.values()

    def pass_seconds(busy: float, seconds: int) -> None:
        for _ in range(seconds):
            cloud.stats(busy)
            edge.stats(0.05)
            scene.camera.run(1)

    pass_seconds(0.05, 15)
    assert [stage.node for stage in scene.plan.routes[0]] == ["cloud1"]
    pass_seconds(0.95, 1)
    pass_seconds(0.05, 10)
    assert [stage.node for stage in scene.plan.routes[0]] == ["cloud1"], "one busy second is no load"
    pass_seconds(0.95, 3)
    assert [stage.node for stage in scene.plan.routes[0]] == ["edge1"]
    assert scene.plan.reason.startswith("cloud1 is busier (a job waits")
    assert scene.decision.cause == "load"
    assert {node.node: node.wait_ms > 10 for node in scene.decision.nodes} == {
        "cam1": False, "cloud1": True, "edge1": False
    }  # fmt: skip


def test_ten_minutes_of_load_that_jitters_cause_at_most_one_change(book: tuple[SliceBook, str], tmp_path: Path) -> None:
    scene = Scene(*book, tmp_path, Weather(lambda _: HIGH), ["edge1", "cloud1"])
    weather = Weather(lambda _: 0.5, jitter=0.2, outliers=0.01, seed=7)
    scene.camera.run(10)
    epoch = scene.plan.epoch
    for _ in range(600):
        for node in scene.workers.values():
            node.stats(min(1.0, weather.measured(0.0)))
        scene.site.run(1)
    assert scene.plan.epoch <= epoch + 1
    assert topics.STATS.at(SITE, node="edge1") in scene.site.broker.retained
