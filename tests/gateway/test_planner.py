"""The planner against hand-computed cases and against a plain loop over all ways; when a change is worth it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.planning import broken, codings, every_way, limited_problems, node, problems, shape, three_tiers

from splitbus_gateway import planner
from splitbus_gateway.constraints import HEADROOM, unmet
from splitbus_gateway.hysteresis import History, Settings, lean, should_switch
from splitbus_gateway.links import Links
from splitbus_gateway.planner import Choice, alternates, plan, plan_anyway
from splitbus_gateway.pricing import Priced, price
from splitbus_gateway.problem import (
    OBJECTIVES,
    Codings,
    Cut,
    Limits,
    LinkFacts,
    NodeFacts,
    Objective,
    Pinned,
    Problem,
    Split,
)
from splitbus_schemas.errors import UnsatisfiableError
from splitbus_schemas.messages import LinkReport, Tier


def test_input_as_8_bit_to_the_edge_by_hand() -> None:
    # encode 1 ms, ten times slower here; link 1 + 25 kB x 8 / 40 Mbit/s; decode 0.5; the edge runs 10; back 1 + 0.4
    choice = plan(three_tiers())
    assert choice.best.split == Split(("cam1", "edge1"), (Cut(0, "q8"),))
    assert choice.best.ms == pytest.approx(10 + 6 + 0.5 + 10 + 1.4)
    assert [(s.what, s.where, round(s.ms, 3)) for s in choice.best.steps] == [
        ("run", "cam1", 0.0),
        ("encode", "cam1", 10.0),
        ("link", "cam1>edge1", 6.0),
        ("decode", "edge1", 0.5),
        ("queue", "edge1", 0.0),
        ("run", "edge1", 10.0),
        ("link", "edge1>cam1", 1.4),
    ]
    # 1 + 20 up, 10 to run, 1.4 back
    assert choice.runner_up is not None
    assert choice.runner_up.split == Split(("cam1", "edge1"), (Cut(0, "raw"),))
    assert choice.runner_up.ms == pytest.approx(32.4)


def test_a_poor_link_keeps_everything_on_the_device() -> None:
    slow = {pair: LinkFacts(200.0, 0.1, 0.1) for pair in three_tiers().links}
    choice = plan(three_tiers(links=slow))
    assert choice.best.split == Split(("cam1",))
    assert choice.best.ms == pytest.approx(100.0)


def test_a_busy_edge_sends_the_rest_to_the_cloud() -> None:
    busy = (node("edge1", "edge", [0, 2, 6, 10], wait_ms=500.0), node("cloud1", "cloud", [0, 1, 3, 5]))
    choice = plan(three_tiers(workers=busy))
    assert choice.best.split.nodes == ("cam1", "cloud1")


def test_three_stages_when_the_edge_is_slow_and_the_way_from_it_fast() -> None:
    # raw input up: 1 + 20; the edge to cut 7: 6; 10 kB on: 5 + 0.8; the cloud's last block: 1; back: 10 + 0.8
    slow_edge = node("edge1", "edge", [0, 2, 6, 300])
    fast_cloud = node("cloud1", "cloud", [0, 50, 100, 101])
    problem = three_tiers(workers=(slow_edge, fast_cloud), limits=Limits(lossless_only=True))
    choice = plan(problem)
    assert choice.best.split == Split(("cam1", "edge1", "cloud1"), (Cut(0, "raw"), Cut(7, "raw")))
    assert choice.best.ms == pytest.approx(1 + 20 + 6 + 5 + 0.8 + 1 + 10 + 0.8)


def test_the_agreement_asked_for_rules_codecs_out_and_losses_of_two_cuts_add_up() -> None:
    best = plan(three_tiers(limits=Limits(min_agreement=0.995))).best.split
    assert {cut.codec for cut in best.cuts} == {"raw"}
    both = Split(("cam1", "edge1", "cloud1"), (Cut(3, "q8"), Cut(7, "q8")))
    found = {way.split for way in every_way(three_tiers(limits=Limits(min_agreement=0.985)))}
    assert both not in found
    assert both in {way.split for way in every_way(three_tiers(limits=Limits(min_agreement=0.98)))}


def test_what_is_missing_is_named_and_no_candidate() -> None:
    workers = (*three_tiers().workers, node("edge2", "edge", None), node("edge3", "edge", [0, 1, 2, 3]))
    choice = plan(three_tiers(workers=workers))
    assert choice.blocked == ("edge2 has no profile yet", "no link measured from cam1 to edge3")
    assert set(choice.best.split.nodes) <= {"cam1", "edge1", "cloud1"}


def test_a_way_that_falls_behind_the_frames_is_taken_only_when_all_do() -> None:
    # 25 kB take 25 ms at 8 Mbit/s to the edge, 20 ms at 10 Mbit/s to the cloud, which is 10 ms further away
    links = {**three_tiers().links, ("cam1", "edge1"): LinkFacts(2.0, 8.0, 80.0)}
    free = plan(three_tiers(links=links)).best
    assert (free.split.nodes, round(free.interval_ms)) == (("cam1", "edge1"), 25)
    slower = plan(three_tiers(links=links, every_ms=24.0))
    assert (slower.best.split.nodes, round(slower.best.interval_ms)) == (("cam1", "cloud1"), 20)
    assert slower.best.ms > free.ms
    assert slower.unmet == ()
    too_fast = plan(three_tiers(links=links, every_ms=10.0))
    assert too_fast.best == free
    assert too_fast.unmet == ("keeping up with 100 frames a second",)


def test_what_runs_may_take_all_of_the_time_between_frames_and_what_is_chosen_some_less() -> None:
    links = {**three_tiers().links, ("cam1", "edge1"): LinkFacts(2.0, 8.0, 80.0)}
    free = plan(three_tiers(links=links)).best
    assert unmet(three_tiers(links=links, every_ms=25.1), free) == {}
    assert list(unmet(three_tiers(links=links, every_ms=24.9), free)) == ["every_ms"]
    assert plan(three_tiers(links=links, every_ms=25.1)).best.split != free.split


def test_a_worker_that_runs_two_frames_at_once_keeps_up_with_twice_as_many() -> None:
    def asked(lanes: int) -> Choice:
        workers = (replace(three_tiers().workers[0], lanes=lanes),)
        pin = Pinned((Cut(0, "raw"),))
        return plan(three_tiers(workers=workers, pin=pin, links={("cam1", "edge1"): LinkFacts(1.0, 1e5, 1e5)}))

    assert asked(2).best.interval_ms == pytest.approx(asked(1).best.interval_ms / 2)
    assert asked(2).best.ms == asked(1).best.ms


def test_a_device_without_profile_has_no_plan() -> None:
    with pytest.raises(UnsatisfiableError, match="cam1 has no profile yet"):
        plan(three_tiers(device=node("cam1", "device", None)))


def test_ties_go_to_fewer_nodes_and_then_to_the_first_name() -> None:
    links = {("cam1", name): LinkFacts(0.0, 1e6, 1e6) for name in ("edge1", "edge2")}
    twins = (node("edge2", "edge", [0, 2, 6, 10]), node("edge1", "edge", [0, 2, 6, 10]))
    assert plan(three_tiers(workers=twins, links=links)).best.split.nodes == ("cam1", "edge1")
    level = three_tiers(
        codings=codings((0, 9), [[0.0, 0.0]]),
        answer_bytes=0.0,
        device=node("cam1", "device", [0, 10]),
        workers=(node("edge1", "edge", [0, 10]),),
        links=links,
    )
    assert plan(level).best.split == Split(("cam1",))


def test_a_pin_is_obeyed_and_the_free_choice_is_the_runner_up() -> None:
    pinned = Pinned(cuts=(Cut(7, "q8"),), workers=("cloud1",))
    choice = plan(three_tiers(pin=pinned))
    assert choice.best.split == Split(("cam1", "cloud1"), (Cut(7, "q8"),))
    assert choice.runner_up is not None
    assert choice.runner_up.split == Split(("cam1", "edge1"), (Cut(0, "q8"),))
    assert plan(three_tiers(pin=Pinned())).best.split == Split(("cam1",))
    anywhere = plan(three_tiers(pin=Pinned(cuts=(Cut(7, "raw"),))))
    assert anywhere.best.split.nodes == ("cam1", "edge1")


@pytest.mark.parametrize(
    ("pin", "reason"),
    [
        (Pinned(cuts=(Cut(4, "raw"),)), "cut 4 is none of the model's useful cuts"),
        (Pinned(cuts=(Cut(3, "mp3"),)), "codec mp3 is not known"),
        (Pinned(cuts=(Cut(3, "raw"),), workers=("edge9",)), "edge9 is not there"),
        (Pinned(cuts=(Cut(3, "raw"),), workers=("edge1", "cloud1")), "one worker for each cut"),
        (Pinned(cuts=(Cut(3, "raw"),) * 3), "no 3 workers"),
    ],
)
def test_an_impossible_pin_says_why(pin: Pinned, reason: str) -> None:
    with pytest.raises(UnsatisfiableError, match=reason):
        plan(three_tiers(pin=pin))


def test_alternates_share_the_head() -> None:
    workers = (*three_tiers().workers, node("edge2", "edge", [0, 2, 6, 10]))
    links = dict(three_tiers().links) | {("cam1", "edge2"): LinkFacts(2.0, 20.0, 20.0)}
    problem = three_tiers(workers=workers, links=links)
    ways = alternates(problem, Split(("cam1", "edge1", "cloud1"), (Cut(3, "q8"), Cut(7, "raw"))))
    assert {way.split.nodes for way in ways} == {("cam1", "edge1"), ("cam1", "edge2"), ("cam1", "cloud1")}
    assert all(way.split.cuts == (Cut(3, "q8"),) for way in ways)
    assert [way.ms for way in ways] == sorted(way.ms for way in ways)


# --- against a plain loop


@given(problems())
@settings(max_examples=300, deadline=None)
def test_all_at_once_equals_one_by_one(problem: Problem) -> None:
    ways = list(every_way(problem))
    choice = plan(problem)
    fastest = min(way.ms for way in ways)
    assert choice.considered == len(ways)
    assert choice.best.ms == pytest.approx(fastest, rel=1e-9, abs=1e-9)
    others = [way.ms for way in ways if shape(problem, way.split) != shape(problem, choice.best.split)]
    assert (choice.runner_up is None) == (not others)
    if choice.runner_up:
        assert choice.runner_up.ms == pytest.approx(min(others), rel=1e-9, abs=1e-9)
    assert choice.best.ms == pytest.approx(sum(step.ms for step in choice.best.steps))


@given(problem=limited_problems(), hard=st.booleans())
@settings(max_examples=400, deadline=None)
def test_every_objective_and_limit_equals_one_by_one(problem: Problem, *, hard: bool) -> None:
    goal, ways = problem.objective, candidates(problem, hard=hard)
    if not ways:
        with pytest.raises(UnsatisfiableError):
            plan(problem, hard_deadline=hard)
        return
    choice = plan(problem, hard_deadline=hard)
    in_time = problem.limits.deadline_ms is None or choice.best.longest_ms <= problem.limits.deadline_ms + 1e-9
    if not in_time:
        goal = OBJECTIVES["latency"]
    assert choice.in_time is in_time
    assert choice.best.score(goal) == pytest.approx(min(way.score(goal) for way in ways), rel=1e-8, abs=1e-8)
    level = [way.ms for way in ways if way.score(goal) <= choice.best.score(goal) + 1e-10]
    assert choice.best.ms <= min(level) + 1e-6
    assert choice.considered == len(ways)
    others = [way.score(goal) for way in ways if shape(problem, way.split) != shape(problem, choice.best.split)]
    assert (choice.runner_up is None) == (not others)
    if choice.runner_up:
        assert choice.runner_up.score(goal) == pytest.approx(min(others), rel=1e-8, abs=1e-8)
    late = () if in_time else (f"deadline {problem.limits.deadline_ms:g} ms",)
    behind = problem.every_ms is not None and choice.best.interval_ms > problem.every_ms
    slow = (f"keeping up with {1e3 / (problem.every_ms or 1):.3g} frames a second",) if behind else ()
    assert choice.unmet == late + slow


def candidates(problem: Problem, *, hard: bool) -> list[Priced]:
    """The ways among which the best is looked for: in time, and keeping up, if any is."""
    in_time, allowed = (list(every_way(problem, hard_deadline=deadline)) for deadline in (True, False))
    if hard:
        asked = [in_time]
    elif problem.limits.deadline_ms is None:
        asked = [allowed]
    elif problem.objective == OBJECTIVES["latency"] and problem.codings.second is None:
        asked = [allowed]  # the fastest is in time if any is
    else:
        asked = [in_time, allowed]
    every_ms = problem.every_ms or float("inf")
    quick = [[way for way in ways if way.interval_ms <= HEADROOM * every_ms + 1e-9] for ways in asked]
    return next((ways for ways in (*quick, *asked) if ways), [])


@given(limited_problems())
@settings(max_examples=100, deadline=None)
def test_those_who_must_answer_get_a_plan_that_keeps_privacy_and_says_what_it_breaks(problem: Problem) -> None:
    choice = plan_anyway(problem)
    missed = broken(problem, choice.best)
    assert bool(missed) == bool(choice.unmet)
    assert not missed & {"keep_on_device", "keep_on_site", "min_agreement", "lossless_only", "codecs"}
    assert not {facts.tier for facts in problem.workers if facts.node in choice.best.split.nodes} & (
        problem.limits.must_not_run
    )


@given(problems())
@settings(max_examples=50, deadline=None)
def test_the_same_question_gets_the_same_answer_in_whatever_order_it_comes(problem: Problem) -> None:
    turned = Problem(
        problem.codings,
        problem.reference_ms,
        problem.answer_bytes,
        problem.device,
        problem.workers[::-1],
        dict(reversed(list(problem.links.items()))),
        problem.limits,
    )
    one, two = plan(problem), plan(turned)
    assert one.best == two.best
    assert (one.runner_up and one.runner_up.split) == (two.runner_up and two.runner_up.split)


def large_problem(cuts: int = 48, codecs: int = 5, edges: int = 4, clouds: int = 2) -> Problem:
    rng = np.random.default_rng(1)
    names, cells = tuple(f"codec{i}" for i in range(codecs)), (cuts, codecs)
    lossless = np.zeros(cells, dtype=np.bool_)
    lossless[:, :2] = True

    def worker(name: str, tier: Tier, scale: float) -> NodeFacts:
        return NodeFacts(name, tier, np.cumsum([0.0, *rng.random(cuts) * scale]), 1.0, frozenset(names))

    near = tuple(worker(f"edge{i}", "edge", 0.2) for i in range(edges))
    far = tuple(worker(f"cloud{i}", "cloud", 0.1) for i in range(clouds))
    pairs = [("cam", w.node) for w in near + far] + [(a.node, b.node) for a in near for b in far]
    return Problem(
        codings=Codings(
            tuple(range(cuts + 1)), names, rng.random(cells) * 1e5, rng.random(cells), rng.random(cells),
            np.ones(cells), lossless,
        ),
        reference_ms=5.0,
        answer_bytes=4e3,
        device=worker("cam", "device", 1.0),
        workers=near + far,
        links={pair: LinkFacts(10.0, 20.0, 20.0) for pair in pairs},
    )  # fmt: skip


def test_48_cuts_5_codecs_4_edges_and_2_clouds_are_all_considered() -> None:
    """How long that takes is measured by benchmarks/planner.py."""
    assert plan(large_problem()).considered == 1 + 6 * 240 + 8 * 25 * (48 * 47 // 2)


@pytest.mark.parametrize("objective", [*OBJECTIVES.values(), Objective(1.0, 0.5, 0.1, 0.2)])
def test_100_cuts_and_8_codecs_over_three_tiers_are_priced_together_and_few_one_by_one(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes a plan quick: of 317,000 ways, only those that are told of are priced step by step."""
    priced: list[Split] = []

    def counted(problem: Problem, split: Split) -> Priced:
        priced.append(split)
        return price(problem, split)

    monkeypatch.setattr(planner, "price", counted)
    problem = replace(large_problem(cuts=100, codecs=8, edges=1, clouds=1), objective=objective)
    choice = plan(problem)
    assert choice.considered == 1 + 2 * 800 + 64 * (100 * 99 // 2)
    assert choice.best.split in priced
    assert len(priced) <= 2


# --- hysteresis


def cost(ms: float, label: str, noise_ms: float = 0.0) -> Priced:
    return Priced(Split(("cam1", label)), ms, (), noise_ms)


@pytest.mark.parametrize(
    ("current", "best", "waited", "turns", "expected"),
    [
        (100.0, 95.0, 60.0, 0, False),  # 5 % is not worth it
        (100.0, 85.0, 60.0, 0, True),
        (100.0, 85.0, 1.0, 0, False),  # dwell
        (100.0, 85.0, 3.0, 1, False),  # the second turn waits twice as long
        (160.0, 85.0, 0.1, 5, True),  # a sharp rise waits for nothing
        (5.0, 4.0, 60.0, 0, False),  # 1 ms is not worth it
    ],
)
def test_a_change_is_worth_a_gain_after_a_dwell(
    current: float, best: float, waited: float, turns: int, *, expected: bool
) -> None:
    verdict = should_switch(
        cost(current, "a"), cost(best, "b"), 100.0, History(100.0 - waited, 100.0, turns), Settings()
    )
    assert verdict.switch is expected
    assert verdict.why


def test_a_broken_plan_is_left_at_once_and_uncertain_links_must_promise_more() -> None:
    history = History(100.0, 100.0, 9)
    assert should_switch(None, cost(500.0, "b"), 100.0, history, Settings()).switch
    unsure = cost(70.0, "b", noise_ms=35.0)
    assert not should_switch(cost(100.0, "a"), unsure, 200.0, history, Settings()).switch


def run_link(rates: Iterator[float] | list[float], rate_hz: float = 1.0) -> list[tuple[float, Split]]:
    """The changes that a stream of measured rates of the camera's uplinks causes: (seconds, what then runs)."""
    links, now, changes = Links(), 0.0, list[tuple[float, Split]]()
    current, history = Split(("cam1",)), History(-1e9, 1e9)
    for rate in rates:
        now += 1 / rate_hz
        for peer, share in (("edge1", 1.0), ("cloud1", 0.25)):
            links.report(
                LinkReport(node="cam1", peer=peer, rtt_ms=5.0, up_mbit=rate * share, down_mbit=50.0, confidence=0.9),
                now,
            )
        links.report(LinkReport(node="edge1", peer="cloud1", rtt_ms=10.0, up_mbit=100.0, confidence=0.9), now)
        pairs = [("cam1", "edge1"), ("cam1", "cloud1"), ("edge1", "cloud1")]
        problem = three_tiers(links={pair: facts for pair in pairs if (facts := links.facts(*pair, now))})
        choice, running = plan(problem), price(problem, current)
        history = lean(history, running, choice.best, now, Settings(), Objective())
        if should_switch(running, choice.best, now, history, Settings()).switch:
            current = choice.best.split
            history = History(now, choice.best.ms)
            changes.append((now, current))
    return changes


@pytest.mark.parametrize("mean", [2.0, 5.0, 8.0, 12.0, 20.0, 40.0])
@pytest.mark.parametrize("seed", range(3))
def test_ten_minutes_of_20_percent_jitter_cause_at_most_one_change_after_the_first(mean: float, seed: int) -> None:
    rng = random.Random(seed)
    changes = run_link([mean * min(1.6, max(0.4, rng.gauss(1.0, 0.2))) for _ in range(600)])
    assert len(changes) <= 2


def test_a_step_of_five_times_is_acted_on_with_the_first_sample() -> None:
    changes = run_link([40.0] * 60 + [2.0] * 60 + [40.0] * 60)
    assert [at for at, _ in changes] == [1.0, 61.0, 121.0]
    assert changes[0][1] == changes[2][1] != changes[1][1]
