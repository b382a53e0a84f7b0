"""While real frames of one camera flow, another sees nothing of them, and cannot speak in the first one's name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.deployment.client import Client
from tests.deployment.machines import Camera, Machines, Operator, until
from tests.deployment.site import SITE, TOPIC, Site

from splitbus_runtime.bus import Delivery
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import Alert, NodeStats, Plan
from splitbus_schemas.packet import decode, encode
from splitbus_schemas.packet_types import Job, Packet, Result
from splitbus_schemas.parts import Assembler
from splitbus_schemas.topics import ALERT, JOB, PLAN, STATS, TOPICS, parse_topic

pytestmark = pytest.mark.broker

FOR_ALL = {"status", "model"}
"""What every node may read of the others."""


@dataclass(frozen=True)
class Stage:
    """B with its frames, A beside it, and what the operator sees."""

    broker: Broker
    operator: Operator
    camera: Camera
    spy: Client
    model: str

    def shoot(self, frames: int = 5) -> None:
        """Frames of B, each answered by the worker."""
        for _ in range(frames):
            assert self.camera.shoot().route == ("cam-b", "edge1")

    @property
    def plan(self) -> Plan:
        plan = self.operator.plan("cam-b", self.model)
        assert plan is not None
        return plan


@pytest.fixture
def stage(broker_factory: BrokerFactory, site: Site, machines: Machines) -> Iterator[Stage]:
    with broker_factory(setup=site.setup()) as broker, machines.operator(broker) as operator:
        machines.gateway(broker, "certificate")
        machines.worker("edge1", "edge", broker, "certificate")
        spy = Client().trust(site.ca, site.folder / "cam-a.crt", site.folder / "cam-a.key")
        with (
            machines.camera("cam-b", broker, "certificate") as camera,
            spy.connected(broker.host, broker.ports[8883]),
        ):
            camera.follow("cam-b", "edge1")
            yield Stage(broker, operator, camera, spy, machines.record.model)


def test_it_reads_neither_activations_nor_answers_nor_plans(stage: Stage) -> None:
    kinds = [kind.at(SITE, **dict.fromkeys(kind.fields, "+")) for kind in TOPICS]
    for topic in (f"{TOPIC}/#", "#", "$SYS/#", *kinds, f"$share/g/{TOPIC}/job/+/+", *stage.operator.topics()):
        stage.spy.subscribe(topic)
    stage.shoot()
    seen = {d.topic for d in stage.operator.heard()}
    assert {parse_topic(topic)[0].name for topic in seen} >= {"job", "reply", "plan", "slices", "stream", "blob-data"}
    overheard = [parse_topic(topic) for topic in stage.spy.rest()]
    assert {kind.name for kind, _ in overheard} == FOR_ALL
    stage.shoot(1)


def test_it_cannot_plan_nor_write_in_the_others_name(stage: Stage) -> None:
    plan = stage.plan
    payload = plan.model_copy(update={"epoch": plan.epoch + 1, "routes": [], "head": None}).to_json()
    topic = PLAN.at(SITE, node="cam-b", model=model_key(stage.model))
    assert stage.spy.publish(topic, payload, retain=True) == "Not authorized"
    kinds = {topic: parse_topic(topic)[0] for topic in stage.operator.topics()}
    others = [topic for topic, kind in kinds.items() if "cam-a" not in topic]
    assert {kinds[topic].name for topic in others} >= {"job", "reply", "plan", "status", "stats", "blob-get", "peers"}
    for topic in others:
        assert stage.spy.publish(topic, b"x", retain=kinds[topic].retain) == "Not authorized", topic
    stage.shoot()
    assert stage.plan == plan


def test_a_frame_copied_from_the_other_is_refused(stage: Stage) -> None:
    """Under its own name A may write to the worker: a job that B sent, and that says so, gets no answer from it."""
    stage.shoot()
    copied = [p for p in packets(stage.operator.heard("job/edge1/cam-b")) if isinstance(p, Job)][-1]
    frame = encode(copied)
    assert stage.spy.publish(JOB.at(SITE, node="edge1", device="cam-b"), frame) == "Not authorized"
    assert stage.spy.publish(JOB.at(SITE, node="edge1", device="cam-a"), frame) == "Success"
    alert = ALERT.at(SITE, node="edge1")
    until(lambda: stage.operator.raw(alert), "the worker's alert")
    told = Alert.from_json(stage.operator.raw(alert))
    assert told.what == "bad_jobs"
    assert "a job of cam-b" in told.reason
    assert "came under cam-a" in told.reason
    stats = STATS.at(SITE, node="edge1")
    until(lambda: (s := stage.operator.newest(NodeStats, stats)) and s.counters.get("bad_jobs") == 1, "its counter")
    answers = [p.frame for p in packets(stage.operator.heard("reply/cam-b")) if isinstance(p, Result)]
    assert answers.count(copied.frame) == 1, "B gets no second answer"


def packets(heard: list[Delivery]) -> Iterator[Packet]:
    """What these messages carry, put together where it came in parts."""
    assembler = Assembler()
    for delivery in heard:
        arrival = assembler.feed(delivery.payload, 0.0)
        if arrival is not None:
            yield decode(arrival.data)
