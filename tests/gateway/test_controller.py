"""The controller on a bus in memory, with a real registry and a real model: from a device's first word to its plans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import models
from tests.gateway.scripted import SITE, Node, Site

from splitbus_gateway import stream as stream_module
from splitbus_gateway.facts import SILENT_S
from splitbus_gateway.profiling import Turns
from splitbus_gateway.registry import Registry
from splitbus_gateway.rollout import Patience
from splitbus_gateway.slicing import SliceBook
from splitbus_gateway.stream import StreamSettings
from splitbus_runtime.bus import Delivery, MemoryBroker
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.ids import model_key


@pytest.fixture
def model(registry: Registry) -> str:
    return registry.get("person").model


class Cast:
    """A camera 200 times slower than the gateway, an edge 10 times, a cloud 5 times; links are not yet measured."""

    def __init__(self, site: Site, registry: Registry) -> None:
        whole = registry.get("person").whole_ms
        self.site, self.whole = site, whole
        self.model = registry.get("person").model
        self.cam = Node(site.broker, "cam1", "device", 200 * whole)
        self.edge = Node(site.broker, "edge1", "edge", 10 * whole)
        self.cloud = Node(site.broker, "cloud1", "cloud", 5 * whole)

    @property
    def plan(self) -> m.Plan:
        return self.site.plan(self.model)

    @property
    def decision(self) -> m.Decision:
        return self.site.decision(self.model)

    @property
    def nodes(self) -> list[str]:
        """Who answers frames now."""
        return [self.plan.device, *(stage.node for stage in (self.plan.routes or [[]])[0])]

    def mbit(self, slowness: float) -> float:
        """A rate at which the raw input takes that share of the model's time on the camera."""
        return 128 * 128 * 3 * 4 * 8e-3 / (200 * self.whole * slowness)

    def good_links(self) -> None:
        self.cam.link("edge1", self.mbit(0.02), rtt_ms=0.1)
        self.cam.link("cloud1", self.mbit(3), rtt_ms=0.1)
        self.edge.link("cloud1", self.mbit(3), rtt_ms=0.1)

    def begin(self) -> None:
        """Through to a plan on the edge."""
        self.cam.wants(self.model)
        self.site.run(1)
        self.good_links()
        self.site.run(4)
        assert self.nodes == ["cam1", "edge1"], self.decision.why


@pytest.fixture
def site(book: SliceBook, tmp_path: Path) -> Site:
    return Site(MemoryBroker(), book, tmp_path / "gateway")


@pytest.fixture
def cast(site: Site, registry: Registry) -> Cast:
    return Cast(site, registry)


def test_from_interest_to_profiles_to_a_plan(cast: Cast) -> None:
    cast.site.run(1)
    assert cast.cam.work.profiles == []
    cast.cam.wants(cast.model)
    cast.site.run(1)
    assert len(cast.cam.profiled) == len(cast.edge.profiled) == len(cast.cloud.profiled) == 1
    assert cast.cam.peers == ["cloud1", "edge1"]
    assert cast.edge.peers == ["cloud1"]
    assert cast.plan.is_local
    assert "no link measured from cam1 to edge1" in cast.decision.blocked
    cast.good_links()
    cast.site.run(3)
    plan = cast.plan
    assert cast.nodes == ["cam1", "edge1"]
    assert plan.epoch == 2
    assert plan.plan.startswith("p2-")
    assert plan.predicted_ms == pytest.approx(sum(step.ms for step in plan.steps), abs=0.05)
    assert "cam1>edge1 is measured now" in plan.reason
    wanted = {stage.slice for stage in plan.routes[0]}
    assert wanted <= set(cast.edge.work.slices)
    assert cast.edge.work.profiles == []
    decision = cast.decision
    assert (decision.plan, decision.epoch, decision.considered > 10) == (plan.plan, 2, True)
    assert decision.runner_up is not None
    assert decision.blocked == []


def test_a_plan_is_published_when_its_workers_are_ready_and_not_before(cast: Cast) -> None:
    cast.edge.stuck = True
    cast.cloud.stuck = True
    cast.cam.wants(cast.model)
    cast.site.run(1)
    cast.good_links()
    cast.site.run(3)
    assert cast.plan.is_local
    assert cast.edge.work.slices
    cast.edge.stuck = False
    cast.edge.load()
    cast.site.run(0.3)
    assert cast.nodes == ["cam1", "edge1"]


def test_a_worker_that_does_not_get_ready_is_passed_over(cast: Cast) -> None:
    cast.edge.stuck = True
    cast.cam.wants(cast.model)
    cast.site.run(1)
    cast.good_links()
    cast.site.run(9)
    assert cast.nodes == ["cam1", "cloud1"]
    alerts = [alert for alert in cast.site.said(topics.ALERT) if alert.what == "workers_failed"]
    assert [alert.reason.split(":")[0] for alert in alerts] == ["edge1 did not get ready within 5 s"]
    assert any("edge1 did not get ready" in text for text in cast.decision.blocked)


def test_a_worker_that_cannot_load_its_slice_is_passed_over_at_once(cast: Cast) -> None:
    cast.edge.broken = True
    cast.cam.wants(cast.model)
    cast.site.run(1)
    cast.good_links()
    cast.site.run(3)
    assert cast.nodes == ["cam1", "cloud1"]
    assert any("out of memory" in alert.reason for alert in cast.site.said(topics.ALERT))


def test_a_lost_worker_is_left_within_a_tenth_of_a_second(cast: Cast) -> None:
    cast.begin()
    epoch = cast.plan.epoch
    assert {stage.node for route in cast.plan.routes[1:] for stage in route} >= {"cloud1"}
    cast.edge.status("lost")
    cast.site.run(0.1)
    assert cast.plan.epoch == epoch + 1
    assert "edge1" not in {stage.node for route in cast.plan.routes for stage in route}
    assert cast.plan.reason.startswith("edge1 is lost")
    cast.edge.status("ready")
    cast.site.run(5)
    assert cast.nodes == ["cam1", "edge1"]


def test_a_lost_worker_whose_stand_in_is_not_ready_is_left_for_the_device_itself(cast: Cast) -> None:
    cast.cloud.stuck = True
    cast.begin()
    cast.edge.status("lost")
    cast.site.run(0.2)
    assert cast.plan.is_local
    cast.cloud.stuck = False
    cast.cloud.load()
    cast.site.run(0.3)
    assert cast.nodes == ["cam1", "cloud1"]


def test_a_worker_that_falls_silent_is_left_until_it_speaks(cast: Cast) -> None:
    """It hangs, or a bridge on the way is down: what it said last, and the broker retains, is that it is ready."""
    cast.begin()
    epoch = cast.plan.epoch
    cast.site.silent.add("edge1")
    cast.site.run(SILENT_S - 1)
    assert "edge1" in cast.nodes
    cast.site.run(3)
    assert "edge1" not in cast.nodes
    assert "edge1 has said nothing" in f"{cast.decision.why} {cast.decision.blocked}"
    cast.site.silent.clear()
    cast.site.run(60)
    assert cast.nodes == ["cam1", "edge1"]
    assert cast.plan.epoch <= epoch + 3


def test_a_link_that_falls_moves_the_split_and_the_reason_says_so(cast: Cast) -> None:
    cast.begin()
    first = cast.plan
    cast.cam.link("edge1", cast.mbit(8), rtt_ms=0.1)
    cast.cam.link("cloud1", cast.mbit(8), rtt_ms=0.1)
    cast.site.run(0.3)
    second = cast.plan
    assert second.epoch > first.epoch
    assert second.reason.startswith("uplink cam1>edge1 fell from ")
    assert "now takes" in second.reason
    assert cast.decision.before is not None
    assert cast.decision.changed


def test_slices_of_the_old_plan_are_held_while_it_drains_and_no_longer(cast: Cast) -> None:
    cast.begin()
    old = {stage.slice for stage in cast.plan.routes[0]}
    pin = m.Pin(by="anna")
    cast.cam.bus.publish(topics.PIN.at(SITE, node="cam1", model=model_key(cast.model)), pin.to_json(), retain=True)
    cast.site.run(5)
    assert cast.plan.is_local
    assert old <= set(cast.edge.work.slices)
    cast.site.run(7)
    assert cast.edge.work.slices == []


def test_a_pin_is_obeyed_explained_and_taken_back(cast: Cast, registry: Registry) -> None:
    cast.begin()
    cut = registry.get("person").cuts[-1].index
    topic = topics.PIN.at(SITE, node="cam1", model=model_key(cast.model))
    pin = m.Pin(cuts=[m.PlanCut(index=cut, codec="q8")], nodes=["cloud1"], by="anna")
    cast.cam.bus.publish(topic, pin.to_json(), retain=True)
    cast.site.run(0.5)
    assert cast.nodes == ["cam1", "cloud1"]
    assert [(c.index, c.codec) for c in cast.plan.cuts] == [(cut, "q8")]
    assert cast.plan.reason.startswith("pinned by anna: cut")
    assert "free choice would be" in cast.plan.reason
    cast.cam.bus.publish(topic, b"", retain=True)
    cast.site.run(4)
    assert cast.nodes == ["cam1", "edge1"]


@pytest.mark.parametrize(
    ("pin", "reason"),
    [
        (m.Pin(cuts=[m.PlanCut(index=10**6, codec="raw")]), "none of the model's useful cuts"),
        (m.Pin(cuts=[m.PlanCut(index=0, codec="mp3")]), "codec mp3 is not known"),
        (m.Pin(cuts=[m.PlanCut(index=0, codec="raw")], nodes=["edge7"]), "edge7 is not there"),
    ],
)
def test_an_impossible_pin_is_told_once_and_the_plan_stays(cast: Cast, pin: m.Pin, reason: str) -> None:
    cast.begin()
    before = cast.plan
    cast.cam.bus.publish(
        topics.PIN.at(SITE, node="cam1", model=model_key(cast.model)), pin.to_json(), retain=True
    )  # fmt: skip
    cast.site.run(15)
    assert cast.plan == before
    told = [alert.reason for alert in cast.site.said(topics.ALERT)]
    assert len(told) == 1
    assert reason in told[0]


def test_a_device_that_cannot_load_its_head_is_left_alone_for_a_while(cast: Cast) -> None:
    cast.begin()
    plan = cast.plan
    cast.cam.wants(cast.model, state="failed", plan=plan.plan, epoch=plan.epoch, reason="no space left")
    cast.site.run(1)
    assert cast.plan.is_local
    assert "no space left" in " ".join(cast.decision.blocked)
    cast.site.run(20)
    assert cast.plan.is_local
    cast.site.run(20)
    assert cast.nodes == ["cam1", "edge1"]


def test_an_unknown_model_is_told_once(cast: Cast) -> None:
    cast.cam.wants("12" * 32)
    cast.site.run(3)
    told = [alert for alert in cast.site.said(topics.ALERT) if alert.what == "unknown_models"]
    assert len(told) == 1
    assert "splitbus model add" in told[0].reason


def test_another_edge_becomes_an_alternate_and_another_camera_gets_its_own_plan(cast: Cast) -> None:
    cast.begin()
    spare = Node(cast.site.broker, "edge2", "edge", 15 * cast.whole)
    cast.cam.link("edge2", cast.mbit(0.03), rtt_ms=0.1)
    cast.site.run(15)
    assert cast.nodes == ["cam1", "edge1"]
    assert "edge2" in {stage.node for route in cast.plan.routes[1:] for stage in route}
    assert {stage.slice for stage in cast.plan.routes[0]} <= set(spare.work.slices)
    other = Node(cast.site.broker, "cam2", "device", 200 * cast.whole)
    other.wants(cast.model)
    other.link("edge2", cast.mbit(0.01), rtt_ms=0.1)
    cast.site.run(4)
    plan = cast.site.retained(topics.PLAN, node="cam2", model=model_key(cast.model))
    assert [stage.node for stage in plan.routes[0]] == ["edge2"]


def test_decisions_are_said_again_every_ten_seconds_and_plans_never(cast: Cast) -> None:
    cast.begin()
    cast.site.run(2)
    cast.site.log.clear()
    cast.site.run(60)
    assert cast.site.said(topics.PLAN) == []
    assert cast.site.said(topics.WORK) == []
    decisions = cast.site.said(topics.DECISION)
    assert 4 <= len(decisions) <= 7
    assert not any(decision.changed for decision in decisions)


def test_ten_minutes_of_jitter_change_the_plan_at_most_once(cast: Cast) -> None:
    cast.begin()
    rates = [1 + 0.2 * (-1) ** i * ((i * 7919) % 100) / 100 for i in range(600)]
    cast.site.log.clear()
    for rate in rates:
        cast.cam.link("edge1", cast.mbit(0.1) * rate, rtt_ms=0.1)
        cast.cam.link("cloud1", cast.mbit(3) * rate, rtt_ms=0.1)
        cast.site.run(0.25)
    assert len(cast.site.said(topics.PLAN)) <= 1


def test_epochs_grow_across_restarts_and_the_plan_goes_on(
    cast: Cast, book: SliceBook, tmp_path: Path
) -> None:  # fmt: skip
    cast.begin()
    plan = cast.plan
    cast.site.bus.close()
    again = Site(cast.site.broker, book, tmp_path / "gateway")
    again.run(5)
    assert cast.plan == plan
    assert {stage.slice for stage in plan.routes[0]} <= set(cast.edge.work.slices)
    cast.edge.status("lost")
    again.run(1)
    assert cast.plan.epoch == plan.epoch + 1
    again.bus.close()
    (tmp_path / "gateway" / "epochs.json").write_text("{damaged")
    third = Site(cast.site.broker, book, tmp_path / "gateway")
    cast.edge.status("ready")
    third.run(6)
    assert cast.plan.epoch == plan.epoch + 2
    assert json.loads((tmp_path / "gateway" / "epochs.json").read_text()) == {
        f"cam1/{model_key(cast.model)}": plan.epoch + 2
    }


def test_orders_wait_for_the_retained_plans_so_that_no_worker_drops_slices(
    cast: Cast, book: SliceBook, tmp_path: Path
) -> None:
    cast.begin()
    held = set(cast.edge.work.slices)
    cast.site.bus.close()
    again = Site(cast.site.broker, book, tmp_path / "gateway")
    again.run(5)
    orders = [delivery.payload for delivery in again.log if delivery.topic == topics.WORK.at(SITE, node="edge1")]
    assert [set(m.NodeWork.from_json(payload).slices) for payload in orders] == [held]


def test_a_removed_model_takes_its_plans_along(
    tmp_path: Path, registry: Registry
) -> None:  # fmt: skip
    own = Registry(tmp_path / "own", samples=1)
    own.add("small", models.save(models.chain(), tmp_path))
    site = Site(MemoryBroker(), SliceBook(own), tmp_path / "gateway")
    cam = Node(site.broker, "cam1", "device", 10.0)
    model = own.get("small").model
    cam.wants(model)
    site.run(2)
    assert site.retained(topics.PLAN, node="cam1", model=model_key(model))
    own.remove("small")
    site.run(2)
    assert site.retained(topics.PLAN, node="cam1", model=model_key(model)) is None
    assert site.retained(topics.DECISION, node="cam1", model=model_key(model)) is None


def test_a_mistake_in_planning_is_counted_and_the_last_plan_stays(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    cast.begin()
    plan = cast.plan

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(stream_module, "plan_anyway", fail)
    cast.edge.status("lost")
    cast.site.run(2)
    assert cast.plan == plan
    assert cast.site.alerts.counters["planning_failed"] > 0
    monkeypatch.undo()
    cast.site.run(2)
    assert cast.plan != plan


def test_nodes_profile_one_after_the_other_workers_first_and_a_slow_one_holds_nobody_up() -> None:
    turns = Turns()
    assert turns.admit(["edge1", "cam1", "cam2"], 0.0) == {"edge1"}
    assert turns.admit(["cam1", "cam2"], 1.0) == {"cam1"}
    assert turns.admit(["cam1", "cam2"], 15.0) == {"cam1"}
    assert turns.admit(["cam1", "cam2"], 25.0) == {"cam1", "cam2"}
    assert len(turns.admit([f"cam{i}" for i in range(40)], 50.0)) == 6 + 2
    assert turns.admit([], 60.0) == set()


FIELDS = {"node": "cam1", "peer": "edge1", "device": "cam1", "boot": "b1", "name": "person", "bridge": "b"}


@pytest.fixture(scope="module")
def running(book: SliceBook, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Cast:
    site = Site(MemoryBroker(), book, tmp_path_factory.mktemp("gateway"))
    cast = Cast(site, registry)
    cast.begin()
    return cast


@given(st.data())
@settings(max_examples=60)
def test_garbage_on_every_topic_changes_nothing_but_counters(running: Cast, data: st.DataObject) -> None:
    fields = FIELDS | {"model": model_key(running.model)}
    unread = (topics.PIN, topics.WORK, topics.PEERS)
    kind = data.draw(st.sampled_from([kind for kind in topics.TOPICS if kind not in unread]))
    topic = kind.at(SITE, **{name: fields[name] for name in kind.fields})
    plan, before = running.plan, running.site.alerts.counters["bad_messages"]
    running.site.inbox.append(Delivery(topic, data.draw(st.binary(min_size=1, max_size=40))))
    running.site.run(0.3)
    assert running.site.alerts.counters["bad_messages"] == before + 1
    assert running.plan == plan


def test_patience_ends_even_for_a_worker_that_loads_for_ever(
    book: SliceBook, registry: Registry, tmp_path: Path
) -> None:
    settings_ = replace(StreamSettings(), patience=Patience(accept_s=1.0, load_s=4.0))
    site = Site(MemoryBroker(), book, tmp_path, settings_)
    cast = Cast(site, registry)
    cast.edge.stuck = True
    cast.cam.wants(cast.model)
    site.run(1)
    cast.good_links()
    site.run(1)
    loading = m.SliceState(node="edge1", boot="b1", loading=cast.edge.work.slices)
    cast.edge.send(topics.SLICES, loading, node="edge1")
    site.run(2)
    assert cast.plan.is_local
    site.run(4)
    assert cast.nodes == ["cam1", "cloud1"]


def test_nobody_waits_for_a_node_that_cannot_profile() -> None:
    """Its disk is full, say: it keeps its turn and tries on, and the next one gets one too."""
    turns = Turns()
    assert turns.admit(["edge1", "cam"], 0.0) == {"edge1"}
    assert turns.admit(["edge1", "cam"], 1.0) == {"edge1"}
    assert turns.admit(["edge1", "cam"], 1.5, stuck={"edge1"}) == {"edge1", "cam"}
