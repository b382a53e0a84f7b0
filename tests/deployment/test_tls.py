"""A whole site over TLS, on the shipped broker configuration and the generated ACL, with the real programs."""

from __future__ import annotations

import pytest
from tests.brokers import BrokerFactory
from tests.deployment.machines import Machines, until
from tests.deployment.site import SITE, Site, Way

from splitbus_schemas.messages import ModelCard
from splitbus_schemas.topics import MODEL

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("way", ["password", "certificate"])
def test_frames_are_answered_over_tls(
    broker_factory: BrokerFactory, site: Site, machines: Machines, way: Way
) -> None:
    with broker_factory(setup=site.setup()) as broker:
        operator = machines.operator(broker)
        gateway, worker = machines.gateway(broker, way), machines.worker("edge1", "edge", broker, way)
        with machines.camera("cam-a", broker, way) as camera:
            answer = camera.follow("cam-a", "edge1")
            assert answer.attempts == 1
        assert operator.newest(ModelCard, MODEL.at(SITE, name="small")) == machines.record.card
        plan = operator.plan("cam-a", machines.record.model)
        assert plan is not None
        assert (answer.plan, answer.epoch) == (plan.plan, plan.epoch)
        assert worker.stop() == 0
        assert gateway.stop() == 0
        until(lambda: operator.state("edge1") == operator.state("gateway") == "stopping", "both said goodbye")
    for program in (gateway, worker):
        assert f"serves site {SITE} at mqtts://" in program.log
        assert "refused" not in program.log
