"""A camera that was given the gateway's key follows what the gateway signed, and refuses, counts and tells the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.brokers import Broker
from tests.device.rig import CAMERA, Site, made_up, plain, same, wait_for

from splitbus_device import InferenceSession
from splitbus_gateway.signing import Signer
from splitbus_gateway.slicing import SliceBook
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import model_key

pytestmark = pytest.mark.broker

GATEWAY, STRANGER, NOBODY = Signer(Ed25519PrivateKey.generate()), Signer(Ed25519PrivateKey.generate()), Signer()
CLOSE = 1e-5


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Iterator[Site]:
    made = Site(broker, tmp_path, signer=GATEWAY)
    yield made
    made.close()


def camera(site: Site, chain: Path) -> InferenceSession:
    return site.session(chain, gateway_key=GATEWAY.public)


def say(site: Site, plan: m.Plan, by: Signer, *, signed_for: str = CAMERA) -> None:
    """Publish the plan under the camera's topic, signed by somebody for somebody."""
    here = topics.PLAN.at(site.name, node=CAMERA, model=model_key(plan.model))
    there = topics.PLAN.at(site.name, node=signed_for, model=model_key(plan.model))
    assert site.bus.publish(here, by.seal(there, plan), qos=1, retain=True)


def test_a_signed_plan_is_followed_and_others_are_refused_counted_and_told(site: Site, chain: Path) -> None:
    card = site.register(chain)
    plan, evil = site.plan(card, [("edge1", 2)]), site.plan(card, [("edge1", 4)])
    slices = {*site.stage_slices(plan), *site.stage_slices(evil)}
    with site.worker("edge1", *slices, gateway_key=GATEWAY.public), camera(site, chain) as session:
        site.follow(session, plan)
        feeds = made_up(session)
        same(session.run(None, feeds), plain(chain).run(None, feeds), CLOSE)
        say(site, evil, NOBODY)
        wait_for("it is counted", lambda: site.counters().get("unsigned") == 1)
        say(site, evil, STRANGER)
        say(site, evil, GATEWAY, signed_for="cam2")
        wait_for("both are counted", lambda: site.counters().get("forged") == 2)
        assert session.plan == plan.plan
        assert (evil.plan, "loading") not in site.plan_states(card)
        told = site.alerts()
        assert sum("is not signed" in reason for reason in told) == 1
        assert sum("has a signature of nobody whom gateway_key names" in reason for reason in told) == 2
        site.follow(session, evil)  # once the gateway says so, it is as good as any


def test_a_signed_plan_of_long_ago_is_refused_even_after_a_restart(site: Site, chain: Path) -> None:
    card = site.register(chain)
    old, new = site.plan(card, [("edge1", 2)]), site.plan(card, [("edge1", 4)])
    topic = topics.PLAN_STATE.at(site.name, node=CAMERA, model=model_key(card.model))
    with site.worker("edge1", *site.stage_slices(old), *site.stage_slices(new)):
        with camera(site, chain) as session:
            site.follow(session, new)
            site.publish(old)
            wait_for("it is counted", lambda: site.counters().get("stale_plans") == 1)
            assert session.plan == new.plan
        with camera(site, chain) as session:  # the old plan is retained now
            learned = ("none", new.epoch, "active")
            wait_for("the gateway learns the epoch", lambda: told(site, topic) == learned)
            assert session.plan == "local"
            wait_for("it is counted", lambda: site.counters().get("stale_plans") == 1)
            assert any(f"epoch {old.epoch} is older than {new.epoch}" in reason for reason in site.alerts())
            site.follow(session, new)


def told(site: Site, topic: str) -> tuple[str, int, str]:
    """Plan, epoch and state, as the camera told them last."""
    state = site.said(m.PlanState, topic)[-1]
    return state.plan, state.epoch, state.state


def follows(session: InferenceSession, plan: m.Plan) -> bool:
    return session.plan == plan.plan


def test_without_a_key_the_camera_believes_its_broker_as_before(site: Site, chain: Path) -> None:
    card = site.register(chain)
    plans = [site.plan(card, [("edge1", cut)]) for cut in (2, 4, 2)]
    slices = {slice_id for plan in plans for slice_id in site.stage_slices(plan)}
    with site.worker("edge1", *slices), site.session(chain) as session:
        for plan, by in zip(plans, (GATEWAY, STRANGER, NOBODY), strict=True):
            say(site, plan, by)
            wait_for("it is followed", partial(follows, session, plan))
    assert not (site.folder / "camera" / "epochs.json").exists()


@pytest.mark.parametrize("by", [NOBODY, STRANGER])
def test_a_signed_plan_cannot_bring_in_slices_of_others(site: Site, chain: Path, by: Signer) -> None:
    card = site.register(chain)
    honest = site.book
    site.book = SliceBook(site.registry, signer=by)
    evil = site.plan(card, [("edge1", 2)])
    site.book = honest
    with camera(site, chain) as session:
        site.publish(evil)
        word = "unsigned" if by is NOBODY else "forged"
        wait_for("it is told", lambda: any(f"is {word} and not opened" in reason for reason in site.alerts()))
        wait_for("the plan has failed", lambda: site.plan_states(card)[-1] == (evil.plan, "failed"))
        feeds = made_up(session)
        same(session.run(None, feeds), plain(chain).run(None, feeds))
        assert session.plan == "local"


def test_a_forged_card_names_no_model(site: Site, chain: Path) -> None:
    card = site.register(chain)
    topic = topics.MODEL.at(site.name, name="model")
    site.bus.publish(topic, STRANGER.seal(topic, card), qos=1, retain=True)
    with camera(site, chain) as session:
        wait_for("it is counted", lambda: site.counters().get("forged") == 1)
        assert site.plan_states(card) == [], "it follows no model that it cannot believe in"
        site.bus.publish(topic, GATEWAY.seal(topic, card), qos=1, retain=True)
        wait_for("it asks for a plan", lambda: site.plan_states(card) == [("none", "active")])
        assert session.plan == "local"


def test_the_key_may_come_by_environment_or_file(
    site: Site, chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = site.register(chain)
    file = tmp_path / "gateway.pub"
    file.write_text(f"{GATEWAY.public}\n")
    monkeypatch.setenv("SPLITBUS_GATEWAY_KEY", str(file))
    with site.session(chain) as session:
        plan = site.plan(card)
        say(site, plan, NOBODY)
        wait_for("it is counted", lambda: site.counters().get("unsigned") == 1)
        site.follow(session, plan)
    monkeypatch.setenv("SPLITBUS_GATEWAY_KEY", str(tmp_path / "none.pub"))
    with pytest.raises(ConfigError, match=r"none\.pub cannot be read"):
        site.session(chain)


def test_what_mosquitto_sub_shows_stays_json(site: Site, chain: Path) -> None:
    card = site.register(chain)
    plan = site.plan(card)
    topic = topics.PLAN.at(site.name, node=CAMERA, model=model_key(card.model))
    shown = json.loads(GATEWAY.seal(topic, plan))
    assert (shown["plan"], shown["epoch"], list(shown)[-1]) == (plan.plan, plan.epoch, "signature")
