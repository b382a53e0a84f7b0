"""A camera's process killed with kill -9 in mid-stream, and two of them that go by one name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.brokers import Broker
from tests.faults.frames import Frames
from tests.faults.plant import CAMERA, DEADLINE_S, EDGE_ROUTE, Plant, plant
from tests.faults.record import Record, runs
from tests.faults.test_control_dies import good

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

SERVICE_S = 2.0
"""From the new process's first frame to an answer along the best way."""

OTHER, CLONE = "camera2", "clone"


@pytest.fixture(scope="module")
def standing(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """One site for both."""
    with plant(broker, tmp_path_factory.mktemp("plant"), 0) as site:
        yield site


@pytest.fixture
def site(standing: Plant, seed: int) -> Plant:
    for name in (OTHER, CLONE):
        if name in standing.processes:
            standing.end(name)
    standing.renew(seed)
    return standing


def death(site: Plant) -> tuple[float, set[int]]:
    """Seconds from the next life's first frame to an answer along the best way; frames that died with this one."""
    log = site.log_of_frames
    site.steady(EDGE_ROUTE)
    site.pause(0.0, 0.3)
    died = site.strike(CAMERA)
    site.processes[CAMERA].wait()
    log.read()
    answered = {one.index for one in log.given}
    open_ones = {index for index, at in log.asked.items() if index not in answered and at > died - DEADLINE_S}
    site.start_camera()
    first = log.wait("its next life", lambda: log.first_asked(died), 20, site.tale)
    served = site.answered("the bus answers", died, lambda one: one.route == EDGE_ROUTE and one.asked > died, 60)
    return served.at - first, open_ones


def test_a_camera_is_killed(site: Plant, record: Record) -> None:
    neighbour = site.start_camera(OTHER)
    neighbour_is_served(site, neighbour)
    deaths = [death(site) for _ in range(runs())]
    site.end(OTHER)
    excused = set[int]().union(*(open_ones for _, open_ones in deaths))
    tally = site.verdict(excused)
    times = [seconds * 1e3 for seconds, _ in deaths]
    record(
        "camera killed beside another one", len(deaths), times, tally.frames, tally.lost, tally.doubled, tally.late,
        f"its next life's first frame to an answer along the best way; {len(excused)} frames died with it",
    )  # fmt: skip
    assert good(tally), tally
    assert max(times) <= SERVICE_S * 1e3
    assert len(excused) <= 5 * len(deaths)


def neighbour_is_served(site: Plant, log: Frames) -> None:
    log.wait("the neighbour's frames fly", lambda: log.first(site.begun, lambda one: not one.is_local), 60, site.tale)


def test_two_cameras_go_by_one_name(site: Plant, record: Record) -> None:
    """A cloned disk: both are answered, each with its own answers, and the operator is told."""
    first = site.log_of_frames
    clone = None
    for _ in range(runs(2, 10)):
        clone = site.start_camera(CAMERA, name=CLONE)
        site.pause(6.0, 8.0)
        site.end(CLONE)
    assert clone is not None
    site.steady(EDGE_ROUTE)
    tally = site.verdict()
    flown = [sum(not one.is_local for one in log.since(site.begun)) for log in (first, clone)]
    record(
        "two cameras by one name", runs(2, 10), [], tally.frames, tally.lost, tally.doubled, tally.late,
        f"nothing is timed: {flown[0]} and {flown[1]} frames of the two were answered over the bus",
    )  # fmt: skip
    assert good(tally), tally
    assert min(flown) > 10
    assert any(alert.what == "shared_device_id" for alert in site.witness.alerts(CAMERA, site.begun))
