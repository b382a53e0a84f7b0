"""A whole site over TLS, on the shipped broker configuration and the generated ACL, with the real programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.brokers import BrokerFactory
from tests.deployment.machines import Machines, until
from tests.deployment.site import SITE, Site, Way, create_site

from splitbus_schemas.acl import acl
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import Decision, ModelCard
from splitbus_schemas.topics import DECISION, JOB, MODEL, STATUS

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("way", ["password", "certificate"])
def test_frames_are_answered_over_tls(broker_factory: BrokerFactory, site: Site, machines: Machines, way: Way) -> None:
    with broker_factory(setup=site.setup()) as broker, machines.operator(broker) as operator:
        gateway, worker = machines.gateway(broker, way), machines.worker("edge1", "edge", broker, way)
        with machines.camera("cam-a", broker, way) as camera:
            answer = camera.follow("cam-a", "edge1")
        assert answer.attempts == 1
        assert operator.heard("job/edge1/cam-a")
        card = operator.newest(ModelCard, MODEL.at(SITE, name="small"))
        assert card is not None
        assert card.model_copy(update={"signature": None}) == machines.record.card
        plan = operator.plan("cam-a", machines.record.model)
        assert plan is not None
        assert (answer.plan, answer.epoch) == (plan.plan, plan.epoch)
        assert worker.stop() == 0
        assert gateway.stop() == 0
        until(lambda: operator.state("edge1") == operator.state("gateway") == "stopping", "both said goodbye")
    for program in (gateway, worker):
        assert f"serves site {SITE} at mqtts://" in program.log
        assert "refused" not in program.log


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The certificates and passwords of somebody else's site, whose nodes have the same names."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for word in create_site(folder).folder.glob("*.word"):
        word.write_text("forgotten\n")
    return folder


@pytest.mark.parametrize(
    ("way", "strange", "line"),
    [
        ("password", ["password_file"], "refused: Not authorized: check username, password and ACL"),
        ("certificate", ["certfile", "keyfile"], "it hung up without an answer: check certfile and the broker's log"),
        ("certificate", ["cafile"], "its certificate is not trusted: self-signed certificate in certificate chain"),
    ],
    ids=["password", "certificate", "authority"],
)
def test_what_does_not_fit_is_said_and_the_camera_answers_alone(
    broker_factory: BrokerFactory, site: Site, machines: Machines, elsewhere: Path, caplog: pytest.LogCaptureFixture,
    way: Way, strange: list[str], line: str,
) -> None:  # fmt: skip
    with broker_factory(setup=site.setup()) as broker:

        def keys(node: str) -> dict[str, str]:
            access = site.access(broker, node, way)
            return {key: str(elsewhere / Path(access[key]).name) for key in strange}

        gateway = machines.gateway(broker, way, **keys("gateway"))
        worker = machines.worker("edge1", "edge", broker, way, **keys("edge1"))
        with machines.camera("cam-a", broker, way, **keys("cam-a")) as camera:
            assert camera.shoot().route == ("cam-a",)
            until(lambda: line in caplog.text, lambda: f"{line!r} in: {caplog.text}")
            assert camera.shoot().plan == "local"
        for program in (gateway, worker):
            program.wait_log(line)
            assert program.stop() == 0, "it waits, and ends when asked to"
            assert "forgotten" not in program.log
            assert "Traceback" not in program.log


def test_without_any_right_it_is_said_and_the_camera_answers_alone(
    broker_factory: BrokerFactory, site: Site, machines: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    """The ACL of another site: whoever connects may do nothing here."""
    with broker_factory(setup=site.setup(rules=acl(site="elsewhere"))) as broker:
        worker = machines.worker("edge1", "edge", broker, "certificate")
        with machines.camera("cam-a", broker, "certificate") as camera:
            line = f"refused a message to {STATUS.at(SITE, node='cam-a')}: Not authorized: check username, password"
            until(lambda: line in caplog.text, lambda: f"{line!r} in: {caplog.text}")
            assert camera.shoot().route == ("cam-a",)
        worker.wait_log(f"refused a message to {STATUS.at(SITE, node='edge1')}: Not authorized")
        worker.wait_log("edge1 waits for the broker")


def test_a_camera_that_may_not_send_jobs_gets_no_split_plan(
    broker_factory: BrokerFactory, site: Site, machines: Machines
) -> None:
    """Its right was taken away: it has a name and a password, but is none of the ACL's devices."""
    with (
        broker_factory(setup=site.setup(rules=acl(devices=["cam-b"]))) as broker,
        machines.operator(broker) as operator,
    ):
        machines.gateway(broker, "password")
        machines.worker("edge1", "edge", broker, "password")
        with (
            machines.camera("cam-a", broker, "password") as camera,
            machines.camera("cam-b", broker, "password") as allowed,
        ):
            allowed.follow("cam-b", "edge1")
            key = model_key(machines.record.model)
            topic = DECISION.at(SITE, node="cam-a", model=key)
            until(
                lambda: (found := operator.newest(Decision, topic)) and "no link measured" in " ".join(found.blocked),
                lambda: f"the reason in {operator.raw(topic)!r}",
            )
            assert camera.shoot().route == ("cam-a",)
        assert not operator.heard(JOB.at(SITE, node="edge1", device="cam-a").partition(f"{SITE}/")[2])
