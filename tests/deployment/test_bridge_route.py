"""Edge broker and cloud broker, joined by bridge.conf, with the real programs on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.deployment.machines import Machines, Operator, until
from tests.deployment.site import CLOUD, SITE, Site

from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import LinkReport, Pin, PlanCut, SliceState
from splitbus_schemas.topics import LINK, PIN, SLICES

pytestmark = pytest.mark.broker

STATE = "$SYS/broker/connection/bridge-home/state"


@dataclass(frozen=True)
class BothSides:
    """The gateway and a camera at the edge broker, workers at either."""

    edge: Broker
    cloud: Broker
    operator: Operator
    machines: Machines

    @property
    def model(self) -> str:
        return self.machines.record.model

    def pin(self, *workers: str) -> tuple[int, ...]:
        """Have cam-a's frames run on these; the cuts. Over loopback the planner would find the bridge slow."""
        cuts = [cut.index for cut in self.machines.record.cuts if cut.index][: len(workers)]
        pin = Pin(cuts=[PlanCut(index=index, codec="zstd") for index in cuts], nodes=[*workers], by="a test")
        self._publish_pin(pin.to_json())
        return tuple(cuts)

    def unpin(self) -> None:
        self._publish_pin(b"")

    def _publish_pin(self, payload: bytes) -> None:
        topic = PIN.at(SITE, node="cam-a", model=model_key(self.model))
        self.operator.bus.publish(topic, payload, qos=1, retain=True)

    def planned(self) -> set[str]:
        """The workers of cam-a's plan, alternates included."""
        plan = self.operator.plan("cam-a", self.model)
        assert plan is not None
        return {stage.node for route in plan.routes for stage in route}

    def is_measured(self, node: str, peer: str) -> bool:
        link = self.operator.newest(LinkReport, LINK.at(SITE, node=node, peer=peer))
        return link is not None and link.rtt_ms is not None and link.up_mbit is not None and link.down_mbit is not None


@pytest.fixture
def both(broker_factory: BrokerFactory, site: Site, machines: Machines) -> Iterator[BothSides]:
    with (
        broker_factory(setup=site.setup()) as cloud,
        broker_factory(setup=site.setup("bridge.conf", peers={CLOUD: cloud})) as edge,
        machines.operator(edge) as operator,
    ):
        machines.gateway(edge)
        yield BothSides(edge, cloud, operator, machines)


def test_frames_take_the_route_to_the_cloud(both: BothSides) -> None:
    operator, machines = both.operator, both.machines
    worker = machines.worker("cloud1", "cloud", both.cloud, "certificate")
    with machines.camera("cam-a", both.edge, "certificate") as camera:
        cuts = both.pin("cloud1")
        assert camera.follow("cam-a", "cloud1").cuts == cuts
        assert operator.heard("blob/get/cloud1"), "it asked for its slices across the bridge"
        slices = operator.newest(SliceState, SLICES.at(SITE, node="cloud1"))
        assert slices is not None
        assert slices.ready
        assert both.is_measured("cam-a", "cloud1")

        machines.worker("edge1", "edge", both.edge, "certificate")
        cuts = both.pin("edge1", "cloud1")
        assert camera.follow("cam-a", "edge1", "cloud1").cuts == cuts
        assert both.is_measured("edge1", "cloud1")

        worker.kill()
        until(lambda: operator.state("cloud1") == "lost", "its will has crossed")
        until(lambda: "cloud1" not in both.planned(), "a plan without it")
        both.unpin()
        camera.follow("cam-a", "edge1")
        assert "cloud1" not in both.planned()


@pytest.mark.slow  # the bridge tries again after up to 30 s
def test_a_cut_link_costs_no_frame_and_heals(both: BothSides) -> None:
    both.machines.worker("cloud1", "cloud", both.cloud)
    with both.machines.camera("cam-a", both.edge) as camera:
        both.pin("cloud1")
        camera.follow("cam-a", "cloud1")
        both.cloud.kill()
        for _ in range(4):
            answer = camera.shoot()
            assert (answer.route, answer.late) == (("cam-a",), False)
        until(lambda: both.operator.raw(STATE) == b"0", "the bridge says that it is down")
        both.cloud.start()
        camera.follow("cam-a", "cloud1")


@pytest.mark.slow
def test_a_silent_cloud_is_left_out_until_it_speaks(both: BothSides) -> None:
    """The far broker hangs: the bridge notices only after 22 s, and the retained status still says `ready`."""
    both.machines.worker("cloud1", "cloud", both.cloud)
    with both.machines.camera("cam-a", both.edge) as camera:
        both.pin("cloud1")
        camera.follow("cam-a", "cloud1")
        both.cloud.suspend()
        until(lambda: (plan := both.operator.plan("cam-a", both.model)) and plan.is_local, "a plan without it", 15)
        assert both.operator.state("cloud1") == "ready"
        assert camera.shoot().attempts == 0
        plan = both.operator.plan("cam-a", both.model)
        assert plan is not None
        assert plan.reason.startswith("cloud1 has said nothing")
        both.cloud.resume()
        camera.follow("cam-a", "cloud1")
