"""Following plans: which count, when they switch, and what becomes of those that cannot be followed."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import pytest
from tests import models
from tests.device.rig import CAMERA, FalseWorker, Site, made_up, plain, same, wait_for

from splitbus_device import Answer, InferenceSession
from splitbus_schemas import messages as m
from splitbus_schemas.ids import model_key
from splitbus_schemas.packet_types import Spent
from splitbus_schemas.terms import base_epoch
from splitbus_schemas.topics import PLAN, PLAN_STATE
from splitbus_worker.stage import next_packet, run_stage

pytestmark = pytest.mark.broker

CLOSE = 1e-5


def test_it_moves_to_the_bus_with_a_plan_and_back_without(site: Site, chain: Path) -> None:
    """The gateway learns by the state topic that the camera waits for a plan, and what it follows."""
    card = site.register(chain)
    plan = site.plan(card, [("edge1", 2)])
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as session:
        wait_for("it asks for a plan", lambda: site.plan_states(card) == [("none", "active")])
        feeds = made_up(session)
        expected = plain(chain).run(None, feeds)
        same(session.run(None, feeds), expected)
        assert session.plan == "local"
        site.follow(session, plan)
        wait_for(
            "it tells", lambda: site.plan_states(card)[1:] == [(plan.plan, "loading"), (plan.plan, "active")]
        )  # fmt: skip
        same(session.run(None, feeds), expected, CLOSE)
        assert session.last_answer is not None
        assert not session.last_answer.is_local
        site.remove_plan(card)
        wait_for("it is local again", lambda: session.plan == "local")
        same(session.run(None, feeds), expected)
        wait_for("it tells that, too", lambda: site.plan_states(card)[-1] == ("none", "active"))
        site.follow(session, plan.model_copy(update={"epoch": 0, "plan": "p-again"}))


def test_a_local_plan_is_followed_too(site: Site, chain: Path) -> None:
    card = site.register(chain)
    with site.session(chain) as session:
        plan = site.follow(session, site.plan(card))
        feeds = made_up(session)
        same(session.run(None, feeds), plain(chain).run(None, feeds))
        answer = session.last_answer
    assert answer is not None
    assert (answer.plan, answer.epoch, answer.route, answer.reason) == (plan.plan, plan.epoch, (CAMERA,), "")


def test_plans_that_are_not_for_us_or_not_news_are_ignored(site: Site, chain: Path, tmp_path: Path) -> None:
    card = site.register(chain)
    other = site.registry.add("other", models.save(models.residual(), tmp_path, "other.onnx"))
    first = site.plan(card, [("edge1", 2)])
    plan = site.plan(card, [("edge1", 4)])
    topic = PLAN.at(site.name, node=CAMERA, model=model_key(card.model))
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as session:
        site.follow(session, plan)
        wrong = {
            "older": first,
            "device": site.plan(card, [("edge1", 2)], device="cam2"),
            "model": site.plan(other),
            "same": plan.model_copy(update={"plan": "p-other"}),
        }
        for message in wrong.values():
            site.bus.publish(topic, message.to_json(), qos=1, retain=True)
        site.bus.publish(topic, b'{"plan": 7}', qos=1, retain=True)
        site.bus.publish(topic, plan.to_json().replace(b'"raw"', b'"brotli"'), qos=1, retain=True)
        ignored = [message.plan for message in wrong.values()]
        wait_for("all are told", lambda: [p for p, state in site.plan_states(card) if state == "ignored"] == ignored)
        wait_for("the broken ones are told", lambda: sum("Plan: " in reason for reason in site.alerts()) == 2)
        assert session.plan == plan.plan
        wait_for("what is retained is what is followed", lambda: site.plan_states(card)[-1] == (plan.plan, "active"))
        session.run(None, made_up(session))
        assert session.last_answer is not None
        assert session.last_answer.cuts == (4,)
        wait_for("all are counted", lambda: site.counters().get("plans_ignored") == len(wrong))


def broken_plans(site: Site, card: m.ModelCard, other: m.ModelCard) -> dict[str, m.Plan]:
    good = site.plan(card, [("edge1", 2)])
    assert good.head is not None

    def head(**changes: object) -> dict[str, object]:
        return {"head": good.head and good.head.model_copy(update=changes)}

    fields: dict[str, dict[str, object]] = {
        "has no blob": head(slice="0" * 64),
        "is no head of model": head(slice=site.slice_id(card, 2, card.nodes)),
        "no head": head(slice=site.slice_id(other, 0, 2)),
        "has a route on which nothing runs": {"routes": [[]]},
        "manifest that cannot be read": head(slice=site.registry.store.put(b"{}")),
    }
    plans = {}
    for why, changes in fields.items():
        plans[why] = site.plan(card, [("edge1", 2)]).model_copy(update=changes)
    return plans


def failed(site: Site, card: m.ModelCard, plan: m.Plan, why: str) -> bool:
    """Whether the camera told, last of all, that it cannot follow the plan, and why."""
    topic = PLAN_STATE.at(site.name, node=CAMERA, model=model_key(card.model))
    last = site.said(m.PlanState, topic)[-1]
    return (last.plan, last.state) == (plan.plan, "failed") and why in (last.reason or "")


def test_a_plan_that_cannot_be_followed_is_told_and_the_old_one_kept(site: Site, chain: Path, tmp_path: Path) -> None:
    card = site.register(chain)
    other = site.registry.add("other", models.save(models.residual(), tmp_path, "other.onnx"))
    plan = site.plan(card, [("edge1", 4)])
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as session:
        site.follow(session, plan)
        for why, broken in broken_plans(site, card, other).items():
            site.publish(broken)
            wait_for(f"it is told: {why}", partial(failed, site, card, broken, why))
            assert session.plan == plan.plan
            session.run(None, made_up(session))
            assert session.last_answer is not None
            assert (session.last_answer.plan, session.last_answer.is_local) == (plan.plan, False)
        site.follow(session, site.plan(card, [("edge1", 2)]))


def test_a_new_plan_switches_between_frames_and_mixes_none(site: Site, chain: Path) -> None:
    """Four threads ask without pause while plans change; every answer is that of one plan, and right."""
    card = site.register(chain)
    cuts = [2, 4, 6]
    plans = [site.plan(card, [("edge1", cut)]) for cut in cuts * 4]
    slices = {slice_id for plan in plans for slice_id in site.stage_slices(plan)}
    reference = plain(chain)
    answers: list[Answer] = []
    failures: list[AssertionError] = []
    stop = threading.Event()

    def ask(seed: int) -> None:
        feeds = made_up(reference, seed)
        expected = reference.run(None, feeds)
        while not stop.is_set():
            try:
                same(session.run(None, feeds), expected, CLOSE)
            except AssertionError as failure:
                failures.append(failure)
            assert session.last_answer is not None
            answers.append(session.last_answer)

    with site.worker("edge1", *slices), site.session(chain) as session:
        askers = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
        site.follow(session, plans[0])
        for asker in askers:
            asker.start()
        for plan in plans[1:]:
            site.follow(session, plan)
            time.sleep(0.05)
        stop.set()
        for asker in askers:
            asker.join(10)
    assert failures == []
    assert {answer.reason for answer in answers} == {""}
    cut_of = {plan.plan: plan.cuts[0].index for plan in plans}
    assert {answer.cuts[0] - cut_of[answer.plan] for answer in answers} == {0}
    assert len({answer.plan for answer in answers}) == len(plans)
    by_thread = [answer.epoch for answer in answers]
    assert max(by_thread) == plans[-1].epoch


def test_a_frame_under_way_keeps_its_plan(site: Site, chain: Path) -> None:
    """The plan changes while the worker has the frame; the answer that comes then is still the frame's."""
    card = site.register(chain)
    old, new = site.plan(card, [("slow1", 2)]), site.plan(card, [("edge1", 4)])
    answers: list[Answer] = []
    with (
        FalseWorker(site, "slow1") as slow,
        site.worker("edge1", *site.stage_slices(new), *site.stage_slices(old, "slow1")) as worker,
        site.session(chain, deadline=20) as session,
    ):
        site.follow(session, old)
        asking = threading.Thread(target=lambda: answers.append(_run(session, chain)))
        asking.start()
        (job,) = wait_for("the frame is out", lambda: slow.jobs)
        site.follow(session, new)
        assert _run(session, chain).plan == new.plan
        piece = worker.agent.shelf.get(job.route[0].slice)
        assert piece is not None
        slow.send(job, next_packet(job, run_stage(job, piece), Spent("slow1", run_us=1)))
        asking.join(10)
    (answer,) = answers
    assert (answer.plan, answer.cuts, answer.route) == (old.plan, (2,), (CAMERA, "slow1"))


def _run(session: InferenceSession, chain: Path) -> Answer:
    feeds = made_up(session)
    same(session.run(None, feeds), plain(chain).run(None, feeds), CLOSE)
    assert session.last_answer is not None
    return session.last_answer


def test_a_plan_of_an_earlier_term_is_refused_and_told(site: Site, chain: Path) -> None:
    card = site.register(chain)
    plan = site.plan(card)
    newer = plan.model_copy(update={"plan": "p-new", "epoch": base_epoch(2001) + 1})
    late = plan.model_copy(update={"plan": "p-late", "epoch": base_epoch(1001) + 7})
    with site.session(chain) as session:
        site.follow(session, newer)
        site.bus.publish(PLAN.at(site.name, node=CAMERA, model=model_key(card.model)), late.to_json(), qos=1)
        wait_for("it is counted", lambda: site.counters().get("stale_plans") == 1)
        assert any("plan p-late is refused: epoch" in reason for reason in site.alerts())
        assert session.plan == "p-new"
