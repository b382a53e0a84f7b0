"""What decisions tell: cause, inputs, flips, and what the plan's frames took."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.gateway.planning import three_tiers
from tests.gateway.scripted import SITE, Node, Site
from tests.gateway.test_controller import Cast

from splitbus_gateway.planner import plan
from splitbus_gateway.pricing import price
from splitbus_gateway.problem import Codings, Limits, LinkFacts, Pinned, Problem, Split
from splitbus_gateway.reasons import changed
from splitbus_gateway.registry import Registry
from splitbus_gateway.slicing import SliceBook
from splitbus_gateway.stream import StreamSettings
from splitbus_runtime.bus import MemoryBroker
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.ids import model_key


@pytest.fixture
def site(book: SliceBook, tmp_path: Path) -> Site:
    return Site(MemoryBroker(), book, tmp_path / "gateway")


@pytest.fixture
def cast(site: Site, registry: Registry) -> Cast:
    return Cast(site, registry)


def test_what_would_turn_a_decision_is_published_with_it(book: SliceBook, registry: Registry, tmp_path: Path) -> None:
    settings = StreamSettings(limits=Limits(codecs=frozenset({"raw"})))
    cast = Cast(Site(MemoryBroker(), book, tmp_path, settings), registry)
    cast.cloud.status("lost")
    cast.cam.wants(cast.model)
    cast.cam.link("edge1", 30.0, rtt_ms=0.1)
    cast.site.run(4)
    decision = cast.decision
    assert decision.runner_up is not None
    assert [flip.what for flip in decision.flips if flip.where == "cam1>edge1"]
    assert all(flip.text.endswith(" now)") for flip in decision.flips)


def frames(cast: Cast, *, factor: float = 1.0, count: int = 10) -> m.StreamStats:
    """A second of frames that took `factor` times what the plan predicts, each step."""
    plan = cast.plan
    nodes = [plan.device, *(stage.node for stage in plan.routes[0])]
    links = sum(step.ms for step in plan.steps if step.what == "link")
    steps = [step.model_copy(update={"ms": step.ms * factor}) for step in plan.steps if step.what != "link"]
    steps.append(m.Step(what="link", where=">".join([*nodes, plan.device]), ms=links * factor))
    stats = m.StreamStats(
        node="cam1", boot="b1", model=cast.model, plan=plan.plan, epoch=plan.epoch, period_s=1.0, frames=count,
        routes={">".join(nodes): count}, p50_ms=plan.predicted_ms * factor, steps=steps,
        cut_bytes=[cut.bytes for cut in plan.cuts],
    )  # fmt: skip
    cast.cam.send(topics.STREAM, stats, node="cam1", model=model_key(cast.model))
    return stats


def test_a_setting_that_frames_contradict_is_left_and_the_reason_says_so(cast: Cast) -> None:
    cast.begin()
    before = [(cut.index, cut.codec) for cut in cast.plan.cuts]
    lossy = [cell for cell in before if not CODECS[cell[1]].lossless]
    assert lossy, "the best plan on this link quantises"
    report = frames(cast).model_copy(update={"guarded": 12, "agreed": 4})
    cast.cam.send(topics.STREAM, report, node="cam1", model=model_key(cast.model))
    cast.site.run(4)
    assert not {(cut.index, cut.codec) for cut in cast.plan.cuts} & set(lossy)
    assert "agreement 0.97" in cast.plan.reason
    assert cast.decision.cause == "limits"
    alerts = [alert.reason for alert in cast.site.said(topics.ALERT) if alert.what == "promises_doubted"]
    assert len(alerts) == 1
    assert "kept 4 of 12 answers" in alerts[0]


def test_a_decision_has_its_inputs_and_what_would_turn_it(cast: Cast) -> None:
    cast.begin()
    decision = cast.decision
    assert decision.cause in ("first", "link")
    assert decision.objective == {"latency": 1.0}
    assert decision.limits == {"min_agreement": 0.97}
    assert [(node.node, node.tier, node.whole_ms, node.pace) for node in decision.nodes] == [
        ("cam1", "device", 200.0, 1.0), ("cloud1", "cloud", 5.0, 1.0), ("edge1", "edge", 10.0, 1.0)
    ]  # fmt: skip
    assert decision.runner_up is not None
    assert len(decision.to_json()) < 20_000


def test_what_frames_took_stands_beside_the_prediction(cast: Cast) -> None:
    cast.begin()
    assert (cast.decision.measured, cast.decision.off) == ([], None)
    for _ in range(12):
        frames(cast, factor=1.25)
        cast.site.run(1)
    decision = cast.decision
    assert decision.measured_ms is not None
    assert decision.measured_ms == pytest.approx(cast.plan.predicted_ms * 1.25, rel=0.01)
    assert decision.off is not None
    assert decision.off == pytest.approx(decision.measured_ms / decision.chosen.predicted_ms - 1, abs=0.01)
    assert {step.what for step in decision.measured} == {step.what for step in cast.plan.steps}


def unpinned(cast: Cast, frames_in_ten_seconds: int) -> m.Decision:
    """What follows a pin to the device when an edge worker would gain 30 of 200 ms."""
    topic = topics.PIN.at(SITE, node="cam1", model=model_key(cast.model))
    cast.edge.whole_ms = 165.0
    cast.cloud.status("lost")
    cast.cam.bus.publish(topic, m.Pin().to_json(), retain=True)
    cast.cam.wants(cast.model)
    cast.cam.link("edge1", 700.0, rtt_ms=0.1)
    cast.site.run(3)
    assert cast.plan.is_local
    stats = m.StreamStats(
        node="cam1", boot="b1", model=cast.model, plan=cast.plan.plan, epoch=cast.plan.epoch, period_s=10.0,
        frames=frames_in_ten_seconds, routes={"cam1": frames_in_ten_seconds}, p50_ms=200.0,
    )  # fmt: skip
    cast.cam.send(topics.STREAM, stats, node="cam1", model=model_key(cast.model))
    cast.cam.bus.publish(topic, b"", retain=True)
    cast.site.run(12)
    return cast.decision


def test_a_change_that_pays_for_its_slices_is_made(cast: Cast) -> None:
    decision = unpinned(cast, 100)
    assert decision.chosen.nodes == ["cam1", "edge1"], decision.why
    assert decision.cause == "pin"


def test_a_change_that_does_not_pay_for_its_slices_within_half_a_minute_is_not_made(cast: Cast) -> None:
    decision = unpinned(cast, 1)
    assert decision.chosen.nodes == ["cam1"], decision.why
    assert "ms a frame, its slices cost" in decision.why
    assert cast.edge.work.slices == []


def busier(problem: Problem) -> Problem:
    edge, cloud = problem.workers
    return replace(problem, workers=(replace(edge, wait_ms=500.0), cloud))


def slower(problem: Problem) -> Problem:
    edge, cloud = problem.workers
    assert edge.elapsed_ms is not None
    return replace(problem, workers=(replace(edge, elapsed_ms=edge.elapsed_ms * 50), cloud))


def poorer(problem: Problem) -> Problem:
    return replace(problem, links={pair: LinkFacts(2.0, 0.5, 80.0) for pair in problem.links})


def farther(problem: Problem) -> Problem:
    return replace(problem, links={pair: LinkFacts(400.0, 40.0, 80.0) for pair in problem.links})


def larger(problem: Problem) -> Problem:
    codings: Codings = replace(problem.codings, coded_bytes=problem.codings.coded_bytes * 40)
    return replace(problem, codings=codings)


def without_edge(problem: Problem) -> Problem:
    return replace(problem, workers=problem.workers[1:], blocked=("edge1 is lost",))


@pytest.mark.parametrize(
    ("change", "cause", "words"),
    [
        (busier, "load", "edge1 is busier (a job waits 500 ms, 0 before)"),
        (slower, "speed", "edge1 runs slower (500 ms, 10 before)"),
        (poorer, "link", "uplink cam1>edge1 fell from 40.0 to 0.5 Mbit/s"),
        (farther, "link", "round trip cam1>edge1 rose from 2.0 to 400.0 ms"),
        (larger, "sizes", "frames of cam1 are larger"),
        (without_edge, "nodes", "edge1 is lost"),
    ],
)
def test_the_cause_of_a_change_is_named_in_a_word_and_a_sentence(change: object, cause: m.Cause, words: str) -> None:
    assert callable(change)
    then = three_tiers()
    running = plan(then).best.split
    now = change(then)
    reason = changed(then, now, running, plan(now).best)
    assert (reason.cause, reason.text.startswith(words)) == (cause, True), reason.text


def test_pins_and_limits_are_causes_too() -> None:
    then = three_tiers()
    best, local = plan(then).best, Split(("cam1",))
    unpinned = changed(replace(then, pin=Pinned()), then, local, best)
    assert (unpinned.cause, unpinned.text.split(":")[0]) == ("pin", "no pin any more")
    other = changed(replace(then, limits=Limits(lossless_only=True)), then, local, best)
    assert other.cause == "limits"
    kept = changed(then, then, best.split, price(then, local), "deadline 5 ms")
    assert (kept.cause, kept.text.split(":")[0]) == ("limits", "deadline 5 ms, which is not kept")


def test_a_node_that_comes_back_is_no_first_plan(cast: Cast) -> None:
    cast.begin()
    cast.edge.status("lost")
    cast.site.run(1)
    assert cast.decision.cause == "nodes"
    spare = Node(cast.site.broker, "edge2", "edge", 9.0)
    cast.cam.link(spare.name, cast.mbit(0.02), rtt_ms=0.1)
    cast.site.run(5)
    assert cast.nodes == ["cam1", "edge2"]
    assert cast.decision.cause == "nodes"
    assert "edge2 joined" in cast.plan.reason
