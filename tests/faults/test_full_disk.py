"""A disk that is full, at each node: frames are answered all the same, and all is well again when there is room."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.brokers import BrokerFactory
from tests.e2e.site import CAMERA, CLOUD, EDGE, wait_for
from tests.faults.disks import Disk, disk
from tests.faults.record import Record, runs
from tests.faults.scene import Scene, staged

from splitbus_runtime.room import LOOK_SECONDS
from splitbus_schemas import messages as m
from splitbus_schemas import topics

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

RESTORED_SECONDS = 2.0
FULL_SECONDS = 4.0
SIZE_MB = 24
STATS_SECONDS = 2.5
"""Counters are published every second."""


@dataclass(frozen=True, slots=True)
class Cramped:
    """A site of which some nodes' folders are small disks of their own."""

    scene: Scene
    disks: Mapping[str, Disk]


@contextlib.contextmanager
def cramped(broker_factory: BrokerFactory, folder: Path, *nodes: str) -> Iterator[Cramped]:
    with contextlib.ExitStack() as stack:
        disks = {node: stack.enter_context(disk(folder / node, SIZE_MB)) for node in nodes}
        scene = stack.enter_context(staged(stack.enter_context(broker_factory()), folder))
        yield Cramped(scene, disks)


@pytest.fixture
def durable(broker_factory: BrokerFactory, tmp_path: Path) -> Iterator[tuple[Scene, Disk]]:
    """A site whose camera keeps its frames on a small disk."""
    with cramped(broker_factory, tmp_path, CAMERA) as site:
        small = site.disks[CAMERA]
        site.scene.play(durable={"folder": str(small.folder / "journal"), "limit_mb": 16})
        yield site.scene, small


@pytest.fixture(scope="module")
def standing(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cramped]:
    """One site for the others."""
    with cramped(broker_factory, tmp_path_factory.mktemp("scene"), EDGE, "gateway") as site:
        site.scene.play()
        yield site


@pytest.fixture
def site(standing: Cramped) -> Cramped:
    """It works, and there is room, whatever the test before left."""
    for small in standing.disks.values():
        small.free()
    if EDGE not in standing.scene.processes:
        standing.scene.start_worker(EDGE, "edge")
    standing.scene.settle_in(seconds=60)
    return standing


def told(scene: Scene, node: str, *words: str) -> bool:
    """Whether an alert of the node speaks of all these."""
    alerts = [alert.reason for what in ALERTS for alert in scene.watch.alerts(node, what)]
    return any(all(word in reason for word in words) for reason in alerts)


ALERTS = ("durable_unkept", "durable_unsynced", "durable_unmarked", "slices_failed", "plans_failed", "planning_failed",
          "models_failed", "epochs_failed", "errors", "profiles_failed")  # fmt: skip


def test_the_cameras_disk_is_full(durable: tuple[Scene, Disk], record: Record) -> None:
    """Its journal takes no frame and its store no slice; every frame is answered, and kept again when there is room."""
    scene, small = durable
    scene.settle_in()
    first, took = time.monotonic(), list[float]()
    for _ in range(runs(2)):
        small.fill()
        full = time.monotonic()
        time.sleep(FULL_SECONDS)
        wait_for("it tells", lambda: told(scene, CAMERA, "free some space"), 10)
        assert {answer.outcome for answer in scene.seen(since=full).answers} == {"answered"}
        small.free()
        took.append(scene.restored(after=time.monotonic(), route=(EDGE,)))
    time.sleep(STATS_SECONDS)
    kept = scene.watch.counter(CAMERA, "durable_unkept")
    time.sleep(STATS_SECONDS)
    verdict = scene.verdict(since=first)
    record("the camera's disk is full", len(took), [1e3 * s for s in took], verdict.frames, len(verdict.lost),
           len(verdict.doubled), len(verdict.late), "from the room to the best plan; durable frames")  # fmt: skip
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert kept > 0
    assert scene.watch.counter(CAMERA, "durable_unkept") == kept, "with room, frames are kept again"
    assert max(took) <= RESTORED_SECONDS
    assert scene.crashed() == []


def test_a_workers_disk_is_full(site: Cramped, record: Record) -> None:
    """It cannot have its slices: the site does without it, it says why, and it serves when there is room."""
    scene, small = site.scene, site.disks[EDGE]
    first, took = time.monotonic(), list[float]()
    for _ in range(runs()):
        scene.kill(EDGE)
        empty(small)
        small.fill()
        mark, begun = scene.watch.mark, time.monotonic()
        scene.start_worker(EDGE, "edge")
        scene.wait_ready(EDGE, since=mark)
        wait_for("the worker tells", lambda: says_full(scene, mark), 20)  # noqa: B023 - asked in this turn
        scene.settle_in(route=(CLOUD,))
        assert (CAMERA, EDGE) not in {answer.route for answer in scene.seen(since=begun + RESTORED_SECONDS).answers}
        time.sleep(random.uniform(0.0, LOOK_SECONDS))
        small.free()
        took.append(scene.restored(after=time.monotonic(), route=(EDGE,), seconds=60))
    assert told(scene, EDGE, "free some space")
    wait_for("the worker tells of the room", lambda: not says_full(scene, 0), 5)
    verdict = scene.verdict(since=first)
    record(
        "a worker's disk is full from the start",
        len(took),
        [1e3 * s for s in took],
        verdict.frames,
        len(verdict.lost),
        len(verdict.doubled),
        len(verdict.late),
        "from the room until the worker serves",
    )
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert max(took) <= RESTORED_SECONDS, f"{took}\n{scene.report()}"
    assert scene.crashed() == []


def says_full(scene: Scene, since: int) -> bool:
    """Whether the edge worker's last word on its slices was that it can keep none."""
    state = scene.watch.last(m.SliceState, topics.SLICES.at(scene.name, node=EDGE), since)
    return state is not None and state.full is not None


def empty(small: Disk) -> None:
    """As it was when it was mounted."""
    for path in small.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_the_gateways_disk_is_full(site: Cramped, record: Record) -> None:
    """It can make no slice and note no epoch: the running plan stays, and a better one comes when there is room."""
    scene, small = site.scene, site.disks["gateway"]
    first, took = time.monotonic(), list[float]()
    for _ in range(runs(1)):
        small.fill()
        scene.kill(EDGE)
        time.sleep(FULL_SECONDS)
        small.free()
        mark = scene.watch.mark
        begun = time.monotonic()
        scene.start_worker(EDGE, "edge")
        scene.wait_ready(EDGE, since=mark)
        took.append(scene.restored(after=begun, route=(EDGE,)))
    verdict = scene.verdict(since=first)
    record(
        "the gateway's disk is full while a worker dies",
        len(took),
        [1e3 * s for s in took],
        verdict.frames,
        len(verdict.lost),
        len(verdict.doubled),
        len(verdict.late),
        "from the worker's start to the best plan",
    )
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert scene.crashed() == []


def test_a_model_does_not_fit_into_the_registry(site: Cramped, tmp_path: Path) -> None:
    """`model add` says so, leaves nothing half written, and works when there is room."""
    scene, first = site.scene, time.monotonic()
    with disk(tmp_path / "registry", 1) as small:
        config = tmp_path / "small.toml"
        config.write_text(scene.config.read_text().replace('"gateway"', '"registry"', 1))
        small.fill(leave=8192)
        done = scene.splitbus("model", "add", "second", scene.model, "--config", config)
        assert done.returncode == 1, done.stdout
        assert "No space left" in done.stderr
        assert "Traceback" not in done.stderr
        listed = scene.splitbus("model", "list", "--config", config, "--json")
        assert (listed.returncode, listed.stdout.strip()) == (0, "[]"), listed.stderr
        small.free()
        done = scene.splitbus("model", "add", "second", scene.model, "--config", config)
        assert done.returncode == 0, done.stderr
    verdict = scene.verdict(since=first)
    assert verdict.is_clean, str(verdict)
