"""Which workers a camera leaves alone, and what they say that ends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.device.rig import CAMERA, FalseWorker, Site, made_up, wait_for

from splitbus_device.breaker import LIMIT
from splitbus_device.nodes import NodeWatch
from splitbus_schemas.messages import NodeStatus
from splitbus_schemas.packet_types import Echo, Job


def status(pace: float | None = None, *, node: str = "edge1", boot: str = "b1") -> NodeStatus:
    return NodeStatus(state="ready", node=node, boot=boot, tier="edge", pace=pace)


def test_a_worker_recovers_when_it_was_slow_and_is_no_more() -> None:
    watch = NodeWatch()
    said = [(None, False), (10.0, False), (4.0, False), (None, True), (None, False), (3.0, False), (None, True)]
    assert [watch.recovers(status(pace)) for pace, _ in said] == [recovers for _, recovers in said]
    assert not watch.recovers(status(5.0))
    assert not watch.recovers(status(node="edge2"))
    assert watch.recovers(status(boot="b2")), "started anew"


def test_a_worker_returns_when_it_says_the_same_again_or_was_lost() -> None:
    watch = NodeWatch()
    for pace, returns in ((None, True), (None, True), (10.0, False), (10.0, True), (None, False), (None, True)):
        assert watch.returns(status(pace)) == returns
    lost = NodeStatus(state="lost", node="edge1", boot="b1", tier="edge")
    assert watch.note(lost)
    assert watch.returns(status(7.0)), "slow, and back"
    assert not watch.returns(lost.model_copy(update={"boot": "b0"})), "the will of an earlier start"
    assert not watch.returns(status(7.0).model_copy(update={"since": "later"})), "which it puts right"
    assert watch.returns(status(boot="b2")), "started anew"


@pytest.mark.broker
def test_a_worker_that_talks_but_is_slow_is_left_alone_until_it_says_that_it_is_well(site: Site, chain: Path) -> None:
    """WIRE-71, the camera's part."""
    card = site.register(chain)
    plan = site.plan(card, [("edge1", 2)], [("edge2", 2)], predicted_ms=20.0)

    def avoided() -> list[str]:
        return site.streams(card)[-1].avoided if site.streams(card) else []

    def talk(job: Job) -> list[Echo]:
        return [Echo(1, "edge1", 0, 0, 0)]

    with (
        FalseWorker(site, "edge1", talk) as slow,
        site.worker("edge2", *site.stage_slices(plan, "edge2")),
        site.session(chain, deadline=2.0) as session,
    ):
        site.follow(session, plan)
        for seed in range(LIMIT):
            session.run(None, made_up(session, seed))
        wait_for("edge1 is avoided", lambda: avoided() == ["edge1"])
        asked = len(slow.jobs)
        site.say_status("edge1", "ready", pace=8.0)
        session.run(None, made_up(session))
        assert session.last_answer is not None
        assert (session.last_answer.route, session.last_answer.attempts) == ((CAMERA, "edge2"), 1)
        assert avoided() == ["edge1"], "it says that it is slow"
        assert len(slow.jobs) == asked
        site.say_status("edge1", "ready")
        wait_for("edge1 is avoided no more", lambda: avoided() == [], 1.5)
        session.run(None, made_up(session))
        wait_for("it is asked again", lambda: len(slow.jobs) > asked)
