"""A camera's process killed with kill -9 in mid-stream, and two of them that go by one name."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.brokers import Broker
from tests.faults.frames import Frames
from tests.faults.plant import CAMERA, DEADLINE_S, EDGE_ROUTE, Plant, plant
from tests.faults.record import Record, runs
from tests.faults.test_control_dies import good

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

SERVICE_S = 2.0
"""From the new process's first frame to an answer along the best way."""

OTHER = "camera2"


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


def test_a_camera_is_killed(broker: Broker, tmp_path: Path, seed: int, record: Record) -> None:
    with plant(broker, tmp_path, seed) as site:
        site.start_workers()
        site.start_camera()
        neighbour = site.start_camera(OTHER)
        neighbour_is_served(site, neighbour)
        deaths = [death(site) for _ in range(runs())]
        excused = set[int]().union(*(open_ones for _, open_ones in deaths))
        tally = site.judge(excused)
        times = [seconds * 1e3 for seconds, _ in deaths]
        record(
            "camera killed beside another one", len(deaths), times, tally.frames, tally.lost, tally.doubled, tally.late,
            f"its next life's first frame to an answer along the best way; {len(excused)} frames died with it",
        )  # fmt: skip
        assert good(tally), tally
        assert max(times) <= SERVICE_S * 1e3
        assert len(excused) <= 5 * len(deaths)


def neighbour_is_served(site: Plant, log: Frames) -> None:
    log.wait("the neighbour's frames fly", lambda: log.first(0.0, lambda one: not one.is_local), 60, site.tale)


def test_two_cameras_go_by_one_name(broker: Broker, tmp_path: Path, seed: int, record: Record) -> None:
    """A cloned disk: both are answered, each with its own answers, and the operator is told."""
    with plant(broker, tmp_path, seed) as site:
        site.start_workers()
        first = site.start_camera()
        site.steady(EDGE_ROUTE)
        clone = None
        for _ in range(runs(2, 10)):
            clone = site.start_camera(CAMERA, name="clone")
            site.pause(6.0, 8.0)
            site.end("clone")
        assert clone is not None
        site.steady(EDGE_ROUTE)
        tally = site.judge()
        flown = [sum(not one.is_local for one in log.given) for log in (first, clone)]
        record(
            "two cameras by one name", runs(2, 10), [], tally.frames, tally.lost, tally.doubled, tally.late,
            f"nothing is timed: {flown[0]} and {flown[1]} frames of the two were answered over the bus",
        )  # fmt: skip
        assert good(tally), tally
        assert min(flown) > 10
        assert any(alert.what == "shared_device_id" for alert in site.witness.alerts(CAMERA))
