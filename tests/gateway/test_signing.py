"""The gateway's key and what it signs: everything that it tells nodes to do, and nothing that others wrote."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.gateway.scripted import SITE, Node
from tests.gateway.test_daemon import fetch, until

from splitbus_gateway.config import GatewayConfig
from splitbus_gateway.daemon import GatewayDaemon
from splitbus_gateway.registry import Registry
from splitbus_gateway.signing import KEY_FILE, PUBLIC_FILE, Signer, load_signer
from splitbus_runtime.bus import MemoryBroker
from splitbus_runtime.trust import Trust
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import model_key
from splitbus_schemas.signature import SLICE

SIGNED = (topics.PLAN, topics.DECISION, topics.WORK, topics.PEERS, topics.MODEL)


@pytest.fixture
def public(tmp_path: Path) -> str:
    return load_signer(tmp_path / "state").public


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first = load_signer(tmp_path / "state")
    path = tmp_path / "state" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_signer(tmp_path / "state").public == first.public
    assert (tmp_path / "state" / PUBLIC_FILE).read_text() == f"{first.public}\n"
    assert Trust.of(tmp_path / "state" / PUBLIC_FILE).asks
    assert b"PRIVATE" not in (tmp_path / "state" / PUBLIC_FILE).read_bytes()


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    load_signer(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(ConfigError, match=r"could sign plans: chmod 600 .*signing\.key"):
        load_signer(tmp_path)


def test_a_file_that_is_no_key_of_ours_is_refused_and_kept(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content in (b"", b"nonsense", other):
        path = tmp_path / KEY_FILE
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="is no Ed25519 key in PEM: restore it"):
            load_signer(tmp_path)
        assert path.read_bytes() == content


def at_work(hub: MemoryBroker, small: Registry) -> str:
    """A camera and an edge worker; gives the topic of the camera's plan."""
    record = small.get("small")
    cam = Node(hub, "cam1", "device", 200 * record.whole_ms)
    Node(hub, "edge1", "edge", 10 * record.whole_ms)
    cam.link("edge1", 500.0, rtt_ms=0.5)
    cam.wants(record.model)
    return topics.PLAN.at(SITE, node="cam1", model=model_key(record.model))


def split(hub: MemoryBroker, topic: str) -> bool:
    found = hub.retained.get(topic)
    return found is not None and not m.Plan.from_json(found.payload).is_local


@pytest.mark.usefixtures("daemon")
def test_everything_that_nodes_are_told_is_signed_and_plain_to_read(
    hub: MemoryBroker, small: Registry, public: str
) -> None:
    plan = at_work(hub, small)
    until(lambda: split(hub, plan))
    trust = Trust([public])
    told = [(topics.parse_topic(topic)[0], delivery) for topic, delivery in dict(hub.retained).items()]
    for kind, delivery in told:
        if kind in SIGNED:
            body = trust.open(delivery.topic, delivery.payload)
            assert json.loads(delivery.payload) == json.loads(body) | {"signature": delivery.payload[-90:-2].decode()}
    assert {kind.name for kind, _ in told} >= {kind.name for kind in SIGNED}
    head = m.Plan.from_json(hub.retained[plan].payload).head
    assert head is not None
    assert head.slice is not None
    manifest = trust.open(SLICE, bytes(fetch(hub, "edge1", head.slice).data))
    assert m.SliceManifest.from_json(manifest).model == small.get("small").model


def forged(plan: m.Plan, topic: str, *, by: Signer) -> bytes:
    return by.seal(topic, plan.model_copy(update={"plan": "evil", "epoch": plan.epoch + 7}))


@pytest.mark.parametrize(("by", "counter"), [(Signer(), "unsigned"), (Signer(Ed25519PrivateKey.generate()), "forged")])
def test_a_forged_plan_is_taken_off_the_bus_and_never_signed(
    daemon: GatewayDaemon, hub: MemoryBroker, small: Registry, public: str, by: Signer, counter: str
) -> None:
    topic = at_work(hub, small)
    until(lambda: split(hub, topic))
    plan = m.Plan.from_json(hub.retained[topic].payload).model_copy(update={"signature": None})
    hub.connect().publish(topic, forged(plan, topic, by=by), retain=True)
    until(lambda: daemon.alerts.counters[counter] == 1)
    until(lambda: b'"evil"' not in hub.retained[topic].payload)
    again = m.Plan.from_json(Trust([public]).open(topic, hub.retained[topic].payload))
    assert again.epoch < plan.epoch + 7


def test_a_forged_plan_that_was_there_first_is_not_taken_for_an_earlier_gateways(
    hub: MemoryBroker, small: Registry, tmp_path: Path, public: str
) -> None:
    topic = topics.PLAN.at(SITE, node="cam1", model=model_key(small.get("small").model))
    model = small.get("small").model
    plan = m.Plan(plan="evil", epoch=9, device="cam1", model=model, name="small", predicted_ms=1.0, reason="x")
    hub.connect().publish(topic, plan.to_json(), retain=True)
    config = GatewayConfig(site=SITE, state_dir=tmp_path / "state")
    with GatewayDaemon(config, hub.connect(), hub.connect(), small) as running:
        assert at_work(hub, small) == topic
        until(lambda: split(hub, topic))
        assert running.alerts.counters["unsigned"] >= 1
    assert m.Plan.from_json(Trust([public]).open(topic, hub.retained[topic].payload)).plan != "evil"


class CountingKey:
    """A key that counts what it signs."""

    def __init__(self) -> None:
        self.key, self.signed = Ed25519PrivateKey.generate(), 0
        self.public_key = self.key.public_key

    def sign(self, data: bytes) -> bytes:
        self.signed += 1
        return self.key.sign(data)


def test_what_is_said_again_is_not_signed_again() -> None:
    """Orders and peers are looked at every second, and seldom differ."""
    key = CountingKey()
    signer = Signer(cast("Ed25519PrivateKey", key))
    first = signer.seal("a", m.NodeWork())
    assert [signer.seal("a", m.NodeWork()) for _ in range(3)] == [first] * 3
    assert key.signed == 1
    other = signer.seal("a", m.NodeWork(slices=["b" * 64]))
    assert signer.seal("b", m.NodeWork()) != first
    assert signer.seal("a", m.NodeWork()) == first
    assert key.signed == 4
    assert m.NodeWork.from_json(signer.open("a", other)).slices == ["b" * 64]
