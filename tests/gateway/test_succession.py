"""A term begins: what stands is said anew, what is not known here is left alone, and nothing old comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gateway.scripted import SITE, Site
from tests.gateway.test_controller import Cast

from splitbus_gateway.epochs import Epochs
from splitbus_gateway.registry import Registry
from splitbus_gateway.slicing import SliceBook
from splitbus_gateway.succession import highest_term, renewed, standing, strangers
from splitbus_runtime.bus import MemoryBroker
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.ids import model_key
from splitbus_schemas.terms import base_epoch, term_of

OTHER = "77" * 32
"""A model that is not registered."""


@pytest.fixture
def cast(book: SliceBook, registry: Registry, tmp_path: Path) -> Cast:
    cast = Cast(Site(MemoryBroker(), book, tmp_path / "gateway"), registry)
    cast.begin()
    return cast


def lead(cast: Cast, term: int, *had: str) -> None:
    cast.site.controller.begin(term, had)
    cast.site.run(0.3)


def stray(cast: Cast) -> m.Plan:
    """A plan of cam2 for a model that this gateway lacks, and edge1 holds what it needs."""
    topic = topics.PLAN.at(SITE, node="cam2", model=model_key(OTHER))
    plan = cast.plan.model_copy(update={"device": "cam2", "model": OTHER, "name": "other", "plan": "p9-other"})
    tail = m.PlanStage(node="edge1", tier="edge", slice="55" * 32, coding="raw")
    plan = plan.model_copy(update={"routes": [[tail]], "epoch": base_epoch(3000) + 9})
    cast.site.broker.connect().publish(topic, plan.to_json(), retain=True)
    return plan


def test_a_plan_that_stands_is_said_anew_with_an_epoch_of_the_term(cast: Cast) -> None:
    before = cast.plan
    lead(cast, 4000)
    assert cast.plan.epoch == base_epoch(4000) + 1
    assert cast.plan.plan.startswith(f"p{cast.plan.epoch}-")
    assert (cast.plan.routes, cast.plan.head) == (before.routes, before.head)
    assert cast.plan.epoch > before.epoch
    assert (cast.edge.work.term, cast.cam.work.term) == (4000, 4000)
    assert cast.edge.work.slices
    peers = cast.site.retained(topics.PEERS, node="cam1")
    assert peers.term == 4000
    settled = cast.plan
    cast.site.run(5)
    assert cast.plan == settled, "once"


def test_over_a_new_connection_everything_is_said_again_but_nothing_is_new(cast: Cast) -> None:
    lead(cast, 4000)
    plan, work = cast.plan, cast.edge.work
    for topic in [name for name in cast.site.broker.retained if "/ctl/" in name]:
        del cast.site.broker.retained[topic]
    cast.site.controller.resume()
    cast.site.run(0.3)
    assert cast.plan == plan
    assert cast.site.retained(topics.WORK, node="edge1") == work
    assert cast.decision.plan == plan.plan


def test_orders_that_are_written_over_are_said_again(cast: Cast) -> None:
    lead(cast, 4000)
    work = cast.edge.work
    stale = m.NodeWork(slices=["66" * 32], term=3000)
    cast.cam.bus.publish(topics.WORK.at(SITE, node="edge1"), stale.to_json(), retain=True)
    cast.site.run(1.5)
    assert cast.site.retained(topics.WORK, node="edge1") == work


def test_a_model_that_another_gateway_had_keeps_its_plan_and_its_slices(cast: Cast) -> None:
    plan = stray(cast)
    topic = topics.PLAN.at(SITE, node="cam2", model=model_key(OTHER))
    cast.site.run(0.05)
    lead(cast, 4000)
    cast.site.run(2)
    again = m.Plan.from_json(cast.site.broker.retained[topic].payload)
    assert again.routes == plan.routes
    assert term_of(again.epoch) == 4000
    assert plan.routes[0][0].slice in cast.edge.work.slices


def test_a_model_that_was_removed_here_loses_its_plan(cast: Cast) -> None:
    stray(cast)
    cast.site.run(0.05)
    lead(cast, 4000, model_key(OTHER))
    cast.site.run(2)
    assert topics.PLAN.at(SITE, node="cam2", model=model_key(OTHER)) not in cast.site.broker.retained
    assert "55" * 32 not in cast.edge.work.slices


def test_strangers_and_what_stands(cast: Cast) -> None:
    stray(cast)
    cast.site.run(0.05)
    world = cast.site.controller.world
    key = ("cam2", model_key(OTHER))
    assert strangers(world, {model_key(cast.model)}) == {key}
    cast.cam.wants(cast.model, plan="px", epoch=10**9)
    cast.site.run(0.05)
    found = standing(world)
    assert found[key][1] == base_epoch(3000) + 9
    assert found["cam1", model_key(cast.model)][1] >= 10**9, "also what the device says counts"
    again = renewed(found[key][0], 5)
    assert (again.epoch, again.signature) == (5, None)


def test_who_was_told_of_the_highest_term(cast: Cast) -> None:
    assert cast.site.controller.told[1] == 0
    stats = m.NodeStats(node="edge1", boot="b1", uptime_s=1.0, busy=0.0, term=7000)
    cast.edge.send(topics.STATS, stats, node="edge1")
    cast.site.run(0.1)
    assert cast.site.controller.told == ("edge1", 7000)
    cast.cam.wants(cast.model, plan="px", epoch=base_epoch(9000) + 1)
    cast.site.run(0.1)
    assert cast.site.controller.told == ("cam1", 9000)
    assert highest_term(cast.site.controller.world, {})[1] == 7000


def test_epochs_of_a_term_are_above_those_of_the_last(tmp_path: Path) -> None:
    epochs, key = Epochs(tmp_path / "epochs.json"), ("cam1", "0" * 16)
    assert epochs.next(key, 0) == 1
    epochs.begin(2000)
    assert [epochs.next(key, 0), epochs.next(key, 5)] == [base_epoch(2000) + 1, base_epoch(2000) + 2]
    assert epochs.next(key, base_epoch(9000)) == base_epoch(9000) + 1, "a device that is ahead is followed"
    again = Epochs(tmp_path / "epochs.json")
    again.begin(2000)
    assert again.next(key, 0) == base_epoch(9000) + 2
