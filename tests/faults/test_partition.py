"""A site whose two brokers are cut from each other: one leads, both sides go on, and once joined they agree."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from tests.brokers import BrokerFactory
from tests.faults.frames import Tally
from tests.faults.record import Record, runs
from tests.faults.two_sides import GATEWAY, GATEWAY_BEYOND, TwoSides, two_sides

from splitbus_demo.relay import CutMode
from splitbus_schemas.terms import term_of

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

JOINED_S = 2.0
"""From the bridge's word that it is connected until both sides know one term, and one plan for each camera, which it
follows. Mosquitto tries to connect every one to ten seconds."""

SUCCESSION_S = 5.0
"""From the death of the leader until the one beyond the bridge leads."""

HANG_S = 7.0
"""The same for one that hangs: its broker tells it after 3 to 5 s, else its silence does, a little later."""

HELD_S = 3.0
"""The lease."""


@pytest.fixture(scope="module")
def standing(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoSides]:
    """One site for all."""
    with two_sides(broker_factory, tmp_path_factory.mktemp("sides"), 0) as site:
        yield site


@pytest.fixture
def site(standing: TwoSides, seed: int) -> TwoSides:
    standing.renew(seed)
    return standing


def good(tally: Tally) -> bool:
    return (tally.wrong, tally.lost, tally.doubled, tally.late) == (0, 0, 0, 0)


def cut(site: TwoSides, mode: CutMode, seconds: float) -> float:
    """Seconds from the bridge's return until both sides agree; the leader is the same all along."""
    site.settle()
    term = site.lease()
    assert term is not None
    mark = site.beyond.mark
    site.bridge.cut(mode)
    time.sleep(seconds)
    assert site.leader() == GATEWAY, site.tale()
    assert not [lease for lease in site.leases_beyond(mark) if lease.node == GATEWAY_BEYOND], site.tale()
    if seconds > HELD_S + 5:
        assert "bridge" in site.role(GATEWAY_BEYOND), site.role(GATEWAY_BEYOND)
        assert "bridge" in site.role(GATEWAY)
    mark, repaired = site.beyond.mark, time.monotonic()
    site.bridge.restore()
    agreed = site.wait("both sides agree", lambda: site.leases_beyond(mark) and site.agrees(), 30)
    site.settle()
    after = site.lease()
    assert after is not None
    assert (after.node, after.term) == (GATEWAY, term.term)
    assert all(term_of(site.epochs(site.beyond, camera)[0]) == term.term for camera in ("camera1", "camera2"))
    return agreed - max([repaired, *(at for at in site.joined_at if at < agreed)])


@pytest.mark.parametrize("mode", ["reset", "blackhole"])
def test_the_bridge_is_cut(site: TwoSides, record: Record, mode: CutMode) -> None:
    took = [cut(site, mode, seconds) for seconds in ([9.0, 4.0, 14.0, 30.0] * 5)[: runs(2, 20)]]
    tally = site.verdict()
    record(f"bridge between two gateways cut for 4 to 30 s ({mode})", len(took), [1e3 * s for s in took],
           tally.frames, tally.lost, tally.doubled, tally.late,
           "from the bridge's return to one term and one plan each; nobody else led")  # fmt: skip
    assert good(tally), tally
    assert max(took) <= JOINED_S


def test_a_leader_beyond_the_bridge_dies(site: TwoSides, record: Record) -> None:
    took = []
    for number in range(runs(2, 20)):
        dying, next_ = (GATEWAY, GATEWAY_BEYOND) if number % 2 == 0 else (GATEWAY_BEYOND, GATEWAY)
        took.append(succession(site, dying, next_))
    tally = site.verdict()
    record("leader beyond a bridge killed", len(took), [1e3 * s for s in took], tally.frames, tally.lost,
           tally.doubled, tally.late, "from the kill until the one on the other side leads")  # fmt: skip
    assert good(tally), tally
    assert max(took) <= SUCCESSION_S


def succession(site: TwoSides, dying: str, next_: str) -> float:
    """Seconds from the kill until the other leads, at both brokers; the dead one comes back and stands by."""
    site.settle()
    died = site.strike(dying)
    took = site.wait(f"{next_} leads", lambda: site.leader() == site.leader(site.beyond) == next_, 20) - died
    site.wait(f"{dying} stands by", lambda: site.role(dying).startswith(f"stands by for {next_}"), 20)
    site.settle()
    assert site.leader() == next_, "it came back, and did not take the lease"
    return took


def test_a_leader_hangs_and_one_dies_behind_the_cut(site: TwoSides, record: Record) -> None:
    """A hang is told by the leader's broker; a death that nobody could tell waits until the bridge carries it."""
    hung = site.strike(GATEWAY, signal.SIGSTOP)
    took = [site.wait("the other leads", lambda: site.leader(site.beyond) == GATEWAY_BEYOND, 30) - hung]
    site.strike(GATEWAY, signal.SIGCONT)
    site.wait("it stands by", lambda: site.role(GATEWAY).startswith(f"stands by for {GATEWAY_BEYOND}"), 20)
    site.settle()
    site.bridge.cut("reset")
    time.sleep(1.0)
    site.end(GATEWAY_BEYOND, number=signal.SIGKILL)
    time.sleep(8.0)
    assert site.leader() == GATEWAY_BEYOND, "as far as the edge can know"
    assert site.role(GATEWAY).startswith(f"stands by for {GATEWAY_BEYOND}")
    site.bridge.restore()
    led = site.wait("the edge leads", lambda: site.leader() == GATEWAY, 30)
    took.append(led - max(site.joined_at))
    site.wait("both know", lambda: site.leader(site.beyond) == GATEWAY, 10)
    site.settle()
    tally = site.verdict()
    record("leader beyond a bridge hangs; another dies behind the cut", 2, [1e3 * s for s in took], tally.frames,
           tally.lost, tally.doubled, tally.late, "from the fault or repair until the other leads")  # fmt: skip
    assert good(tally), tally
    assert took[0] <= HANG_S
    assert took[1] <= JOINED_S
