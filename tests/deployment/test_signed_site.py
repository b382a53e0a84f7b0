"""A whole site whose nodes have the gateway's key, with the real programs; and a thief with the gateway's password."""

from __future__ import annotations

from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.brokers import BrokerFactory
from tests.deployment.machines import Machines, Operator, until
from tests.deployment.site import SITE, Site

from splitbus_gateway.signing import PUBLIC_FILE, Signer, load_signer
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import NodeStats, NodeWork
from splitbus_schemas.topics import PLAN, STATS, WORK

pytestmark = pytest.mark.broker


def counted(operator: Operator, node: str, what: str) -> int:
    stats = operator.newest(NodeStats, STATS.at(SITE, node=node))
    return stats.counters.get(what, 0) if stats else 0


def test_a_thief_of_the_gateways_password_plans_nothing(
    broker_factory: BrokerFactory, site: Site, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_signer(machines.state)
    monkeypatch.setenv("SPLITBUS_GATEWAY_KEY", str(machines.state / PUBLIC_FILE))
    with broker_factory(setup=site.setup()) as broker, machines.operator(broker) as operator:
        machines.gateway(broker, "password")
        machines.worker("edge1", "edge", broker, "password")
        with machines.camera("cam-a", broker, "password") as camera:
            camera.follow("cam-a", "edge1")
            plan = operator.plan("cam-a", machines.record.model)
            assert plan is not None
            topic = PLAN.at(SITE, node="cam-a", model=model_key(plan.model))
            evil = plan.model_copy(update={"plan": "evil", "epoch": plan.epoch + 100, "signature": None})
            with site.client("gateway").connected(broker.host, broker.port) as thief:
                for by in (Signer(), Signer(Ed25519PrivateKey.generate())):
                    assert thief.publish(topic, by.seal(topic, evil), retain=True) == "Success"
                    assert thief.publish(WORK.at(SITE, node="edge1"), NodeWork().to_json()) == "Success"
                    assert camera.shoot().plan != "evil"
            for node, what in (
                ("cam-a", "unsigned"),
                ("cam-a", "forged"),
                ("edge1", "unsigned"),
                ("gateway", "forged"),
            ):
                until(partial(counted, operator, node, what), f"{node} counted {what}")
            until(lambda: b'"evil"' not in operator.raw(topic), "the gateway put its own plan back")
            assert camera.follow("cam-a", "edge1").plan != "evil"
            assert operator.heard("node/cam-a/alert")
