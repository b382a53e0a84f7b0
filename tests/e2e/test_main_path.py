"""The main path over a real broker with real processes: one site, whose link, workers, gateway and broker fail in turn.

Every test leaves the site as it found it, and checks that every frame was answered once, as onnxruntime answers it.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from tests.e2e.camera import DEADLINE_S
from tests.e2e.site import CAMERA, CLOUD, EDGE, GOOD, MODEL, POOR, Site, Watch, wait_for

from splitbus_demo.relay import CutMode
from splitbus_schemas import messages as m
from splitbus_schemas import topics

pytestmark = pytest.mark.broker

RESCUE_SECONDS = 5.0
"""For an alternate to take over from a worker that was killed."""


def nodes(plan: m.Plan) -> set[str]:
    return {stage.node for route in plan.routes for stage in route}


def primary(plan: m.Plan) -> list[str]:
    return [stage.node for stage in plan.routes[0]] if plan.routes else []


def wait_plan(site: Site, what: str, fits: Any, since: int = 0, seconds: float = 30.0) -> m.Plan:
    """The newest plan, once one fits and the camera follows it."""

    def found() -> m.Plan | None:
        plans = [plan for plan in site.plans(since)[-1:] if fits(plan)]
        state = site.plan_state()
        return plans[0] if plans and state and (state.epoch, state.state) == (plans[0].epoch, "active") else None

    try:
        plan = wait_for(what, found, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{site.story()}") from None
    assert plan is not None
    return plan


def check_all_local_in_time(site: Site, begin: int, end: int) -> None:
    """Frames `begin` to `end` were answered by the camera alone, within their deadline."""
    answers = [answer for index, answer in site.camera.answers(begin) if index < end]
    assert len(answers) == end - begin
    assert {answer.route for answer in answers} == {(CAMERA,)}
    assert [answer.total_ms for answer in answers if answer.late] == []
    assert max(answer.total_ms for answer in answers) <= DEADLINE_S * 1e3


def test_frames_are_local_until_there_is_a_plan(site: Site) -> None:
    site.settle()
    answers = [answer for _, answer in site.camera.answers()]
    first = next(place for place, answer in enumerate(answers) if not answer.is_local)
    assert first > 0, "nodes are profiled before there is a plan"
    assert {(a.route, a.plan, a.epoch, a.attempts) for a in answers[: first - 1]} == {((CAMERA,), "local", 0, 0)}
    assert answers[first].epoch >= 1
    assert answers[first].frame.startswith(f"{CAMERA}/")
    plan = site.plans()[0]
    assert (plan.device, plan.name, plan.model) == (CAMERA, MODEL, site.model_hash)
    assert plan.reason.startswith("first plan: ")
    site.camera.check()


def test_a_poor_link_changes_the_plan(settled: Site) -> None:
    mark, before = settled.watch.mark, settled.plan()
    assert before is not None
    settled.relay.set(POOR)
    change = wait_for(
        "a plan that changes for the link",
        lambda: next((told for told in settled.decisions(mark) if told.changed and told.cause == "link"), None),
    )
    settled.relay.set(GOOD)
    assert change.epoch > before.epoch
    assert change.plan in {plan.plan for plan in settled.plans(mark)}
    assert change.before is not None
    assert (change.before.cuts, change.before.nodes) != (change.chosen.cuts, change.chosen.nodes)
    assert any(link.node == CAMERA for link in change.links)
    settled.settle()


@pytest.mark.parametrize("mode", ["reset", "blackhole"])
def test_a_cut_link_leaves_the_camera_to_itself(settled: Site, mode: CutMode) -> None:
    settled.relay.cut(mode)
    settled.camera.wait_frames(1)  # what was on its way when the link was cut
    begin = settled.camera.wait_frames(12)
    end = settled.camera.asked
    settled.camera.wait("the last of them", lambda: len(settled.camera.answers(begin)) >= end - begin, 2)
    settled.relay.restore()
    check_all_local_in_time(settled, begin, end)
    settled.settle()


def test_another_worker_joins_and_can_stand_in(settled: Site) -> None:
    mark = settled.watch.mark
    settled.start_worker("edge2", "edge")
    settled.wait_ready("edge2", since=mark)
    plan = wait_plan(settled, "a plan that knows edge2", lambda plan: "edge2" in nodes(plan))
    assert len(plan.routes) > 1
    assert plan.routes[0] not in plan.routes[1:]
    settled.processes["edge2"].terminate()
    settled.processes.pop("edge2").wait(10)
    wait_plan(settled, "a plan without edge2", lambda plan: "edge2" not in primary(plan))


def test_the_active_worker_is_killed(settled: Site) -> None:
    plan = wait_plan(settled, "a plan over the bus", primary)
    victim, mark, begin = primary(plan)[-1], settled.watch.mark, settled.camera.asked
    tier = "edge" if victim == EDGE else "cloud"
    settled.kill(victim)
    settled.settle(RESCUE_SECONDS)
    new = wait_plan(settled, "a plan without it", lambda plan: plan.epoch > 0 and victim not in nodes(plan), mark)
    assert new.epoch > plan.epoch
    assert victim in new.reason
    assert sum(answer.late for _, answer in settled.camera.answers(begin)) <= 1, settled.story()
    settled.start_worker(victim, tier)
    settled.wait_ready(victim, since=settled.watch.mark)


def test_the_gateway_is_killed_and_comes_back(settled: Site) -> None:
    before, mark, begin = settled.plan(), settled.watch.mark, settled.camera.asked
    assert before is not None
    settled.kill("gateway")
    status = topics.STATUS.at(settled.name, node="gateway")
    wait_for("the will says so", lambda: _state(settled.watch.last(m.NodeStatus, status, mark)) == "lost")
    settled.camera.wait_frames(8)
    assert settled.plans(mark) == []
    settled.start_gateway()
    settled.wait_ready("gateway", since=settled.watch.mark)
    settled.camera.wait_frames(16)
    flown = [not answer.is_local for _, answer in settled.camera.answers(begin)]
    assert all(flown), f"{flown.count(False)} frames were answered locally\n{settled.story()}"
    pin(settled, "--local")
    after = wait_plan(settled, "a plan of the new gateway", lambda plan: plan.is_local, mark)
    unpin(settled)
    epochs = [before.epoch, *(plan.epoch for plan in settled.plans(mark) if plan.plan != before.plan)]
    assert all(earlier < later for earlier, later in pairwise(epochs)), epochs
    assert after.epoch > before.epoch
    settled.settle()


def _state(status: m.NodeStatus | None) -> str:
    return status.state if status else ""


def test_the_broker_is_killed_and_forgets_everything(settled: Site) -> None:
    before = settled.plan()
    assert before is not None
    settled.broker.kill()
    settled.camera.wait_frames(1)
    begin = settled.camera.wait_frames(12)
    end = settled.camera.asked
    settled.broker.start()
    settled.settle()
    check_all_local_in_time(settled, begin, end)
    newcomer = Watch(settled.broker, settled.name)
    try:
        wait_for("all state is retained again", lambda: not _missing(settled, newcomer), 10)
    except AssertionError:
        pytest.fail(f"not retained after the broker's restart: {_missing(settled, newcomer)}")
    finally:
        newcomer.bus.close()
    after = settled.plan()
    assert after is not None
    assert after.epoch >= before.epoch


def _missing(site: Site, newcomer: Watch) -> list[str]:
    """Topics whose retained message a newcomer did not get."""
    wanted: dict[str, type[m.Message]] = {
        topics.MODEL.at(site.name, name=MODEL): m.ModelCard,
        topics.PLAN.at(site.name, node=CAMERA, model=site.key): m.Plan,
        topics.DECISION.at(site.name, node=CAMERA, model=site.key): m.Decision,
        topics.PLAN_STATE.at(site.name, node=CAMERA, model=site.key): m.PlanState,
        **{topics.STATUS.at(site.name, node=node): m.NodeStatus for node in (CAMERA, EDGE, CLOUD, "gateway")},
        **{topics.CAPS.at(site.name, node=node): m.NodeCaps for node in (CAMERA, EDGE, CLOUD)},
        **{topics.SLICES.at(site.name, node=node): m.SliceState for node in (CAMERA, EDGE, CLOUD)},
        **{topics.PROFILE.at(site.name, node=node, model=site.key): m.NodeProfile for node in (CAMERA, EDGE, CLOUD)},
        **{topics.WORK.at(site.name, node=node): m.NodeWork for node in (EDGE, CLOUD)},
        topics.PEERS.at(site.name, node=CAMERA): m.Peers,
    }
    return [topic for topic, kind in wanted.items() if newcomer.last(kind, topic) is None]


def pin(site: Site, *wish: str) -> None:
    done = site.splitbus("plan", "pin", CAMERA, MODEL, *wish, *site.options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"pinned {CAMERA} {MODEL}: ")


def unpin(site: Site) -> None:
    done = site.splitbus("plan", "unpin", CAMERA, MODEL, *site.options)
    assert (done.returncode, done.stdout) == (0, f"unpinned {CAMERA} {MODEL}\n"), done.stderr


def useful_cuts(site: Site) -> list[int]:
    card = site.watch.last(m.ModelCard, topics.MODEL.at(site.name, name=MODEL))
    assert card is not None
    return card.cuts


PINS = {
    "zstd on the edge": ((2,), ("zstd",), (EDGE,)),
    "raw input in the cloud": ((0,), ("raw",), (CLOUD,)),
    "8 bits, all three tiers": ((1, -1), ("q8", "zstd"), (EDGE, CLOUD)),
    "half precision": ((-1,), ("f16",), (EDGE,)),
    "4 bits": ((-1,), ("q4",), (CLOUD,)),
}
"""Which of the useful cuts, the codec at each, and the worker behind each."""


@pytest.mark.parametrize("name", PINS)
def test_a_pin_is_followed(settled: Site, name: str) -> None:
    places, codecs, workers = PINS[name]
    cuts = tuple(useful_cuts(settled)[place] for place in places)
    wish = [f"--cut={cut}" for cut in cuts] + [f"--codec={c}" for c in codecs] + [f"--node={n}" for n in workers]
    pin(settled, *wish)

    def fits(plan: m.Plan) -> bool:
        found = tuple((cut.index, cut.codec) for cut in plan.cuts)
        return found == tuple(zip(cuts, codecs, strict=True)) and tuple(primary(plan)) == workers

    wait_plan(settled, "the pinned plan", fits)
    begin = settled.camera.wait_frames(6)
    answers = [answer for _, answer in settled.camera.answers(begin + 1)]
    ways = {(answer.route, answer.cuts, answer.codecs) for answer in answers if not answer.is_local}
    assert ways == {((CAMERA, *workers), cuts, codecs)}, settled.story()
    (row,) = json.loads(settled.splitbus("plan", "show", "--json", *settled.options).stdout)
    assert [cut["index"] for cut in row["pinned"]["cuts"]] == list(cuts)
    unpin(settled)


def test_a_pin_to_the_device_and_its_end(settled: Site) -> None:
    pin(settled, "--local")
    plan = wait_plan(settled, "all on the device", lambda plan: plan.is_local)
    assert "pin" in plan.reason
    begin = settled.camera.wait_frames(4)
    assert {answer.route for _, answer in settled.camera.answers(begin + 1)} == {(CAMERA,)}
    mark = settled.watch.mark
    unpin(settled)
    wait_plan(settled, "the gateway decides again", primary, mark)


def test_explain_shows_prediction_beside_measurement(settled: Site) -> None:
    settled.camera.wait_frames(16)
    (found,) = json.loads(explained(settled, "--json"))
    assert found["measured_p50_ms"] > 0
    assert found["decision"]["chosen"]["predicted_ms"] > 0
    both = {
        (row["what"], row["where"]) for row in found["stages"] if None not in (row["predicted_ms"], row["measured_ms"])
    }
    assert ("compute", found["decision"]["chosen"]["nodes"][-1]) in both, found["stages"]
    assert any(what == "link" for what, _ in both), found["stages"]
    text = explained(settled)
    assert f"{CAMERA} runs {MODEL} by plan" in text
    assert all(word in text for word in ("why: ", "predicted", "measured", "next best: ", f"link {CAMERA}>"))


def explained(site: Site, *options: str) -> str:
    done = site.splitbus("plan", "explain", CAMERA, *options, *site.options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_top_shows_all_nodes_and_links(settled: Site) -> None:
    done = settled.splitbus("top", "--once", "--json", *settled.options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    states = {row["node"]: (row["tier"], row["state"]) for row in found["nodes"] if row["node"] != "edge2"}
    assert states == {
        CAMERA: ("device", "ready"),
        EDGE: ("edge", "ready"),
        CLOUD: ("cloud", "ready"),
        "gateway": ("gateway", "ready"),
    }
    links = {(row["node"], row["peer"]): row for row in found["links"]}
    assert {(CAMERA, EDGE), (CAMERA, CLOUD), (EDGE, CLOUD)} <= set(links)
    assert all(links[CAMERA, worker]["up_mbit"] > 0 for worker in (EDGE, CLOUD))
    (stream,) = found["streams"]
    assert (stream["device"], stream["model"], stream["state"]) == (CAMERA, MODEL, "active")
    assert stream["fps"] > 0
    assert found["broken_messages"] == 0
    table = settled.splitbus("top", "--once", *settled.options).stdout
    assert all(word in table for word in (CAMERA, EDGE, CLOUD, "gateway", MODEL))


def test_tap_decodes_a_job_of_the_camera(settled: Site) -> None:
    topic = topics.JOB.at(settled.name, node="+", device=CAMERA)
    done = settled.splitbus("tap", topic, "--count", 8, "--json", "--broker", settled.broker.url)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 8
    job = next(line for line in lines if line["kind"] == "job/job")
    plan = next(plan for plan in settled.plans() if plan.plan == job["plan"])
    assert job["frame"].startswith(f"{CAMERA}/")
    assert (job["model"], job["epoch"]) == (settled.model_hash, plan.epoch)
    assert job["route"][0]["node"] in nodes(plan)
    assert sum(tensor["bytes"] for tensor in job["tensors"]) > 0
    text = settled.splitbus("tap", topic, "--count", 2, "--broker", settled.broker.url).stdout
    assert f"frame {CAMERA}/" in text or "probe" in text
