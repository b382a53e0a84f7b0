"""Two gateways of one site, as real processes at a real broker: one leads, and whatever becomes of it, one does.

All the while a camera takes pictures, and each is answered once and rightly.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.brokers import BrokerFactory
from tests.e2e.site import CAMERA, EDGE, GOOD, MODEL, PLANNER, Site, Watch, serving, wait_for

from splitbus_demo.relay import CutMode, Relay
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.terms import round_of, term_of

pytestmark = pytest.mark.broker

ONE, TWO = "gateway", "gateway2"
TAKE_OVER_SECONDS = 5.0
CONVERGE_SECONDS = 2.0


@dataclass
class Pair(Site):
    """A site with two gateways, which have the same key and models. The second's broker is behind a relay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.second_config = self.folder / f"{TWO}.toml"
        self.second_config.write_text(f'site = "{self.name}"\nnode = "{TWO}"\nstate_dir = "{TWO}"\n{PLANNER}')
        self.second_relay = Relay((self.broker.host, self.broker.port), GOOD)
        self.lease_watch = Watch(self.broker, self.name, ("gateway",))

    def register(self) -> None:
        super().register()
        shutil.copytree(self.state_dir, self.folder / TWO)
        (self.folder / TWO / "signing.key").unlink(missing_ok=True)

    def start_gateway(self) -> None:
        self.start_one(ONE)
        wait_for("the signing key", (self.state_dir / "signing.key").exists)
        if not (self.folder / TWO / "signing.key").exists():
            shutil.copy2(self.state_dir / "signing.key", self.folder / TWO)
        self.start_one(TWO)

    def start_one(self, node: str) -> None:
        config, port = (self.config, self.broker.port) if node == ONE else (self.second_config, self.second_relay.port)
        options = (f"--broker=mqtt://{self.broker.host}:{port}", f"--site={self.name}")
        self.start(node, "gateway", "--config", config, *options)

    def close(self) -> None:
        super().close()
        self.lease_watch.bus.close()
        self.second_relay.close()

    # Who leads

    def leases(self, since: int = 0) -> list[m.Lease]:
        return self.lease_watch.all(m.Lease, topics.LEASE.at(self.name), since)

    def role(self, node: str) -> str:
        status = self.watch.last(m.NodeStatus, topics.STATUS.at(self.name, node=node))
        return status.reason or "" if status and status.state == "ready" else ""

    def wait_roles(self, leader: str, other: str, seconds: float = 30.0) -> None:
        """Both say the same."""
        wait_for(f"{leader} leads", lambda: self.role(leader).startswith("leads"), seconds)
        wait_for(f"{other} stands by", lambda: self.role(other) == f"stands by for {leader}", seconds)

    def wait_leader(self, leader: str, since: int, seconds: float) -> float:
        """Seconds until a plan of a new term was given out by that gateway, and followed by the camera."""
        begun = time.monotonic()

        def follows() -> bool:
            return self.followed_term() in {lease.term for lease in self.leases(since) if lease.node == leader}

        wait_for(f"{leader} leads and the camera follows it", follows, seconds)
        return time.monotonic() - begun

    def followed_term(self) -> int:
        state = self.plan_state()
        return term_of(state.epoch) if state and state.state == "active" else 0

    def make_lead(self, node: str) -> None:
        """By stopping the other, if need be, and starting it again."""
        other = TWO if node == ONE else ONE
        if not self.role(node).startswith("leads"):
            self.end(other)
            wait_for(f"{node} leads", lambda: self.role(node).startswith("leads"))
            self.start_one(other)
        self.wait_roles(node, other)
        wait_for("plans are of its term", lambda: self.followed_term() == self.leases()[-1].term)

    def end(self, node: str) -> None:
        process = self.processes.pop(node)
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    def check_order(self, since: int) -> None:
        """The camera never went back to an older plan, and each claim was of a higher round."""
        states = self.watch.all(
            m.PlanState, topics.PLAN_STATE.at(self.name, node=CAMERA, model=self.key), since
        )  # fmt: skip
        active = [state.epoch for state in states if state.state == "active"]
        assert active == sorted(active)
        held: dict[int, set[str]] = {}
        for lease in self.leases():
            if lease.state == "held":
                held.setdefault(lease.term, set()).add(lease.boot)
        assert all(len(boots) == 1 for boots in held.values())


@pytest.fixture(scope="module")
def pair(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with broker_factory() as broker:
        site = Pair(broker, tmp_path_factory.mktemp("pair"), "pair")
        with serving(site):
            site.open_camera()
            site.settle()
            yield site


@pytest.fixture
def site(pair: Pair) -> Iterator[Pair]:
    """Both run and agree; afterwards every frame was answered, and the camera never went back."""
    mark = pair.watch.mark
    yield pair
    pair.second_relay.restore()
    pair.relay.restore()
    for node in (ONE, TWO):
        if node in pair.processes:
            pair.processes[node].send_signal(signal.SIGCONT)
        else:
            pair.start_one(node)
    wait_for("both are there", lambda: pair.role(ONE) and pair.role(TWO))
    pair.check_order(mark)
    pair.camera.check()


def test_of_two_that_start_together_one_leads(site: Pair) -> None:
    wait_for("roles", lambda: {site.role(ONE)[:5], site.role(TWO)[:5]} == {"leads", "stand"})
    leader = ONE if site.role(ONE).startswith("leads") else TWO
    other = TWO if leader == ONE else ONE
    site.wait_roles(leader, other)
    assert {lease.node for lease in site.leases()[-3:]} == {leader}
    assert site.followed_term() == site.leases()[-1].term
    done = site.splitbus("doctor", "--json", *site.options)
    assert f"{leader} leads" in done.stdout
    assert "both plan" not in done.stdout


def test_a_leader_that_is_killed_is_followed_within_seconds(site: Pair) -> None:
    site.make_lead(ONE)
    mark, before = site.lease_watch.mark, site.followed_term()
    site.kill(ONE)
    took = site.wait_leader(TWO, mark, TAKE_OVER_SECONDS)
    assert round_of(site.followed_term()) > round_of(before)
    assert took < TAKE_OVER_SECONDS
    site.settle()
    site.start_one(ONE)
    site.wait_roles(TWO, ONE)


def test_a_leader_that_stops_hands_over_at_once(site: Pair) -> None:
    site.make_lead(TWO)
    mark = site.lease_watch.mark
    site.end(TWO)
    assert site.wait_leader(ONE, mark, TAKE_OVER_SECONDS) < CONVERGE_SECONDS
    states = [lease.state for lease in site.leases(mark) if lease.node == TWO]
    assert states[-1] == "released"


def test_a_leader_that_was_suspended_finds_itself_deposed(site: Pair) -> None:
    site.make_lead(ONE)
    mark, watched = site.lease_watch.mark, site.watch.mark
    site.processes[ONE].send_signal(signal.SIGSTOP)
    site.wait_leader(TWO, mark, TAKE_OVER_SECONDS)
    term = site.followed_term()
    time.sleep(10 - TAKE_OVER_SECONDS)
    site.processes[ONE].send_signal(signal.SIGCONT)
    site.wait_roles(TWO, ONE)
    assert site.followed_term() == term, "what the sleeper still said moved nothing"
    assert {term_of(plan.epoch) for plan in site.plans(watched)} <= {term}
    site.settle()


@pytest.mark.parametrize(("mode", "seconds"), [("blackhole", CONVERGE_SECONDS), ("reset", 15.0)])
def test_both_sides_of_a_cut_end_with_one_epoch(site: Pair, mode: CutMode, seconds: float) -> None:
    """Plans are of one round all the while; the other hears of it as soon as it has a connection again."""
    site.make_lead(TWO)
    site.settle()
    mark, watched, begun = site.lease_watch.mark, site.watch.mark, site.camera.asked
    site.second_relay.cut(mode)
    site.wait_leader(ONE, mark, TAKE_OVER_SECONDS)
    time.sleep(3)
    flown = [not answer.is_local for _, answer in site.camera.answers(begun)]
    assert sum(flown) > len(flown) / 2, "the camera's side went on by the plan that it had"
    site.second_relay.restore()
    healed = time.monotonic()
    wait_for("the other hears of it", lambda: site.role(TWO) == f"stands by for {ONE}", 20)
    (state,), plan = {site.plan_state()}, site.plan()
    assert state is not None
    assert plan is not None
    assert (state.epoch, state.state) == (plan.epoch, "active")
    assert {round_of(term_of(p.epoch)) for p in site.plans(watched)} == {round_of(term_of(plan.epoch))}
    assert time.monotonic() - healed < seconds
    site.settle()


def test_a_camera_that_was_cut_off_follows_the_new_leader_when_it_is_back(site: Pair) -> None:
    site.make_lead(ONE)
    term = site.followed_term()
    site.relay.cut("blackhole")
    begun = site.camera.wait_frames(4)
    site.end(ONE)
    wait_for("the other leads", lambda: site.role(TWO).startswith("leads"))
    wait_for("it says the plan anew", lambda: (plan := site.plan()) and term_of(plan.epoch) > term)
    assert {answer.is_local for _, answer in site.camera.answers(begun + 1)} == {True}
    assert site.followed_term() == term
    healed = time.monotonic()
    site.relay.restore()
    wait_for("one epoch", lambda: (plan := site.plan()) and site.followed_term() == term_of(plan.epoch))
    assert time.monotonic() - healed < CONVERGE_SECONDS
    site.settle()


def test_a_plan_of_an_earlier_term_is_refused_and_told_and_replaced(site: Pair) -> None:
    """Recorded when it was good, and signed: the thief has the gateway's password at the broker."""
    topic = topics.PLAN.at(site.name, node=CAMERA, model=site.key)
    old = site.watch.newest(topic)
    site.make_lead(TWO)
    site.make_lead(ONE)
    plan, mark = site.plan(), site.watch.mark
    assert plan is not None
    assert plan.epoch > m.Plan.from_json(old).epoch
    site.watch.bus.publish(topic, old, qos=1, retain=True)
    wait_for("it is told", lambda: site.watch.alerts(CAMERA, "stale_plans", mark), 5)
    wait_for("the right one is back", lambda: site.watch.newest(topic) != old, 5)
    state = site.plan_state()
    assert state is not None
    assert state.epoch >= plan.epoch


def test_orders_of_an_earlier_term_are_refused_and_told_and_replaced(site: Pair) -> None:
    topic = topics.WORK.at(site.name, node=EDGE)
    site.make_lead(TWO)
    old = site.watch.newest(topic)
    site.make_lead(ONE)
    mark = site.watch.mark
    site.watch.bus.publish(topic, old, qos=1, retain=True)
    wait_for("it is told", lambda: site.watch.alerts(EDGE, "stale_orders", mark), 5)
    wait_for("the right ones are back", lambda: site.watch.newest(topic) != old, 5)
    site.settle()


def test_the_second_says_which_models_it_lacks_and_leaves_their_plans_alone(site: Pair) -> None:
    site.make_lead(ONE)
    done = site.splitbus("model", "remove", MODEL, "--config", site.second_config)
    assert done.returncode == 0, done.stderr
    (site.folder / TWO / "announced.json").unlink()  # as if it had never had the model
    site.end(TWO)
    site.start_one(TWO)
    try:
        wait_for("it says so", lambda: f"lacks models {MODEL}" in site.role(TWO))
        mark = site.lease_watch.mark
        site.kill(ONE)
        site.wait_leader(TWO, mark, TAKE_OVER_SECONDS)
        begun = site.camera.wait_frames(24)
        flown = sum(not answer.is_local for _, answer in site.camera.answers(begun))
        assert flown >= 12, "the camera goes on by the plan that the first gave it"
        assert site.watch.newest(topics.MODEL.at(site.name, name=MODEL))
    finally:
        with contextlib.suppress(OSError):
            shutil.copytree(site.state_dir / "models", site.folder / TWO / "models", dirs_exist_ok=True)
        site.end(TWO)
        site.start_one(ONE)
        wait_for("the first leads", lambda: site.role(ONE).startswith("leads"))
        site.start_one(TWO)
