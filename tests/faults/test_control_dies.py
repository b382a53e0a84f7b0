"""Gateway and broker killed with kill -9 in mid-stream: frames go on, and nothing waits for a hand."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.brokers import BrokerFactory
from tests.faults.frames import Tally
from tests.faults.plant import EDGE, EDGE_ROUTE, Plant, plant
from tests.faults.record import Record, runs

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

REPAIR_S = 2.0
"""From the gateway's readiness to a frame along the best way."""

SERVICE_S = 5.0
"""From the broker's first CONNACK to an answer over the bus."""


@pytest.fixture(scope="module")
def standing(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """One site for all: a broker of its own, which is killed as well."""
    with broker_factory() as broker, plant(broker, tmp_path_factory.mktemp("plant"), 0) as site:
        yield site


@pytest.fixture
def site(standing: Plant, seed: int) -> Plant:
    standing.renew(seed)
    return standing


def good(tally: Tally) -> bool:
    return (tally.wrong, tally.lost, tally.doubled, tally.late) == (0, 0, 0, 0)


def death_of_the_gateway(site: Plant, *, worker_too: bool) -> tuple[float, int]:
    """Seconds from its readiness to the best plan, and how many frames the camera had to answer alone meanwhile.

    With `worker_too` the worker in use dies while nobody plans: the camera goes on along the plan's next route.
    """
    site.steady(EDGE_ROUTE)
    site.pause(0.0, 0.3)
    died = site.strike("gateway")
    if worker_too:
        site.strike(EDGE)
        site.log_of_frames.wait("the edge is back", lambda: site.witness.status(EDGE, "ready", died), 20, site.tale)
    ready = site.log_of_frames.wait("it is back", lambda: site.witness.status("gateway", "ready", died), 20, site.tale)
    best = site.answered("the best plan", ready, lambda one: one.route == EDGE_ROUTE and one.attempts == 1, 60)
    site.steady(EDGE_ROUTE)
    alone = sum(one.is_local for one in site.log_of_frames.since(died))
    return best.at - ready, alone


def test_the_gateway_is_killed(site: Plant, record: Record) -> None:
    deaths = [death_of_the_gateway(site, worker_too=bool(number % 2)) for number in range(runs(4))]
    tally = site.verdict()
    repairs, alone = [seconds * 1e3 for seconds, _ in deaths], sum(count for _, count in deaths)
    record(
        "gateway killed, every second time with the worker in use", len(deaths), repairs,
        tally.frames, tally.lost, tally.doubled, tally.late,
        f"its return to a frame along the best way; {alone} frames were answered by the camera alone",
    )  # fmt: skip
    assert good(tally), tally
    assert max(repairs) <= REPAIR_S * 1e3
    assert alone <= len(deaths), "a frame now and then, when a route fails with little time left"
    assert site.starts == {"gateway": len(deaths), EDGE: len(deaths) // 2}


def death_of_the_broker(site: Plant) -> tuple[float, float]:
    """Seconds from its return to an answer over the bus, and to one along the best way."""
    site.steady(EDGE_ROUTE)
    site.pause(0.0, 0.3)
    site.broker.kill()
    site.pause(0.2, 1.5)
    site.broker.start()
    back = time.monotonic()
    served = site.answered("the bus answers", back, lambda one: not one.is_local, 60)
    best = site.answered("the best plan", back, lambda one: one.route == EDGE_ROUTE, 60)
    return served.at - back, best.at - back


def test_the_broker_is_killed(site: Plant, record: Record) -> None:
    deaths = [death_of_the_broker(site) for _ in range(runs())]
    tally = site.verdict()
    served, best = ([pair[which] * 1e3 for pair in deaths] for which in (0, 1))
    record(
        "broker killed, nothing retained", len(deaths), served, tally.frames, tally.lost, tally.doubled, tally.late,
        f"its return to an answer over the bus; to one along the best way: worst {max(best):.0f} ms",
    )  # fmt: skip
    assert good(tally), tally
    assert max(served) <= SERVICE_S * 1e3
    assert max(best) <= SERVICE_S * 1e3
    assert site.starts == {}


def test_two_gateways_at_once(site: Plant, record: Record) -> None:
    """Whoever plans, every frame is answered; a second one that comes and dies is not noticed by a single frame."""
    for _ in range(runs(1, 10)):
        site.start_second_gateway()
        site.pause(5.0, 6.0)
        site.end("gateway2")
    site.steady(EDGE_ROUTE)
    alone = sum(one.is_local for one in site.log_of_frames.since(site.begun))
    tally = site.verdict()
    record(
        "two gateways at once", runs(1, 10), [], tally.frames, tally.lost, tally.doubled, tally.late,
        f"nothing is timed: service goes on; {alone} frames were answered by the camera alone",
    )  # fmt: skip
    assert good(tally), tally
    assert site.starts == {"gateway2": runs(1, 10)}
