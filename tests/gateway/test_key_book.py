"""The gateway's list of keys: from list to list, in its file, and on the bus whoever writes there."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.gateway.scripted import SITE

from splitbus_gateway.daemon import GatewayDaemon
from splitbus_gateway.fenced import FencedBus
from splitbus_gateway.key_book import (
    KEYS_FILE,
    editing,
    find,
    read_book,
    retired,
    revoked,
    with_key,
    with_policy,
    write_book,
)
from splitbus_gateway.key_service import KeyService
from splitbus_gateway.sealed_nodes import sealing_objection
from splitbus_gateway.signing import load_signer
from splitbus_gateway.state import NodeView
from splitbus_runtime.bus import Delivery, MemoryBroker
from splitbus_runtime.keyring import Known, read_keys
from splitbus_schemas.errors import ConfigError, SignatureError
from splitbus_schemas.limits import MAX_SEALED_NODES
from splitbus_schemas.messages import KeyList, NodeKeys, NodeStatus, SealState
from splitbus_schemas.seal_keys import key_id, write_public
from splitbus_schemas.topics import KEYS

NOW = 1_800_000_000.0
OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
EMPTY = KeyList(epoch=0)


def test_a_key_follows_another_until_that_is_retired() -> None:
    first = with_key(EMPTY, "edge1", "worker", OLD, NOW)
    both = with_key(first, "edge1", "worker", NEW, NOW)
    entry = find(both, "edge1")
    assert entry is not None
    assert entry.keys == [write_public(NEW), write_public(OLD)]
    alone = find(retired(both, "edge1", NOW), "edge1")
    assert alone is not None
    assert alone.keys == [write_public(NEW)]
    assert find(revoked(both, "edge1", NOW), "edge1") is None


def test_epochs_grow_with_every_change_and_with_the_clock() -> None:
    """Also after a clock that went back, and for a gateway whose folder was lost."""
    one = with_key(EMPTY, "edge1", "worker", OLD, NOW)
    two = with_key(one, "cam1", "device", NEW, NOW)
    three = with_policy(two, NOW - 3600, required=True)
    assert (one.epoch, two.epoch, three.epoch) == (int(NOW), int(NOW) + 1, int(NOW) + 2)
    assert with_policy(three, NOW, required=True) is three
    assert with_key(EMPTY, "edge1", "worker", OLD, NOW + 60).epoch > three.epoch


def test_what_cannot_be_is_said_with_the_remedy() -> None:
    full = with_key(with_key(EMPTY, "edge1", "worker", OLD, NOW), "edge1", "worker", NEW, NOW)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: with_key(full, "edge1", "worker", OTHER, NOW), "splitbus seal retire edge1"),
        (lambda: with_key(full, "edge1", "device", OTHER, NOW), "splitbus seal revoke edge1 comes first"),
        (lambda: with_key(full, "cam1", "device", OLD, NOW), "edge1 has that key already"),
        (lambda: with_key(full, "Cam/1", "device", OTHER, NOW), "cannot stand in a topic"),
        (lambda: retired(with_key(EMPTY, "cam1", "device", OTHER, NOW), "cam1", NOW), "one key only"),
        (lambda: revoked(full, "cam1", NOW), "splitbus seal list"),
    ]
    for act, complaint in cases:
        with pytest.raises(ConfigError, match=complaint):
            act()
    nodes = [NodeKeys(node=f"n{i}", role="device", keys=[write_public(bytes(30) + i.to_bytes(2))]) for i in range(4096)]
    many = KeyList(epoch=1, nodes=nodes)
    assert len(nodes) == MAX_SEALED_NODES
    assert len(many.to_json()) < 2**20
    with pytest.raises(ConfigError, match="its limit"):
        with_key(many, "one-more", "device", OTHER, NOW)


def test_the_file_is_whole_and_can_be_read_by_the_gateways_user(tmp_path: Path) -> None:
    assert read_book(tmp_path) is None
    with editing(tmp_path) as keys:
        made = with_key(keys, "edge1", "worker", OLD, NOW)
        write_book(tmp_path, made)
    assert read_book(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == [KEYS_FILE]
    assert stat.S_IMODE((tmp_path / KEYS_FILE).stat().st_mode) == 0o644
    (tmp_path / KEYS_FILE).write_text("{")
    with pytest.raises(ConfigError, match="is no list of keys"):
        read_book(tmp_path)
    with pytest.raises(ConfigError, match="--state-dir"), editing(tmp_path / "nowhere"):
        pass


def test_the_daemon_publishes_the_list_signed_and_puts_it_back(
    daemon: GatewayDaemon, hub: MemoryBroker, tmp_path: Path
) -> None:
    heard: list[Delivery] = []
    bus = hub.connect()
    topic = KEYS.at(SITE)
    bus.subscribe(topic, heard.append)
    state = tmp_path / "state"
    signer = load_signer(state)
    assert not heard
    for public in (OLD, NEW):
        with editing(state) as keys:
            made = with_key(keys, "edge1", "worker", public, time.time())
            write_book(state, made)
        wait_until(partial(stands, heard, signer.seal(topic, made)))
    bus.publish(topic, b"{}", retain=True)
    wait_until(lambda: heard[-1].payload == signer.seal(topic, made))
    bus.publish(topic, b"", retain=True)
    wait_until(lambda: heard[-1].payload == signer.seal(topic, made))
    assert daemon.alerts.counters["keys_failed"] == 0
    (state / KEYS_FILE).write_text("{")
    wait_until(lambda: daemon.alerts.counters["keys_failed"] > 0)


def test_a_gateway_without_a_list_goes_by_the_one_that_stands_and_says_its_own_only_while_it_leads(
    hub: MemoryBroker, tmp_path: Path
) -> None:
    """As a second gateway does, whose owner copied the signing key and no more."""
    signer, topic, leads = load_signer(tmp_path), KEYS.at(SITE), False
    heard: list[Delivery] = []
    bus = hub.connect()
    bus.subscribe(topic, heard.append)
    service = KeyService(FencedBus(bus, lambda: leads), signer, site=SITE, folder=tmp_path)
    assert not service.refresh()
    made = with_key(EMPTY, "edge1", "worker", OLD, NOW)
    service.note(signer.seal(topic, made))
    assert service.refresh()
    assert service.known.workers == {"edge1"}
    assert not service.refresh(), "once is enough"
    service.note(made.to_json())
    with pytest.raises(SignatureError):
        service.refresh()
    assert service.known.workers == {"edge1"}
    mine = with_key(made, "cam1", "device", NEW, NOW)
    with editing(tmp_path):
        write_book(tmp_path, mine)
    assert not service.refresh(), "it does not lead"
    leads = True
    assert service.refresh()
    assert heard[-1].payload == signer.seal(topic, mine)
    assert service.known.devices == {"cam1"}
    assert not service.refresh()
    service.begin()
    assert service.refresh(), "a new term says everything anew"


def stands(heard: list[Delivery], payload: bytes) -> bool:
    return bool(heard) and heard[-1].payload == payload


def wait_until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def view(node: str, tier: str, public: bytes | None = None) -> NodeView:
    seal = SealState(key=key_id(public), era="e1") if public else None
    status = NodeStatus.model_validate({"state": "ready", "node": node, "boot": "b", "tier": tier, "seal": seal})
    return NodeView(node, status)


@pytest.mark.parametrize(
    ("device", "worker", "listed", "required", "objection"),
    [
        (None, None, (), False, None),
        (None, NEW, ("edge1",), False, None),
        (OLD, NEW, ("cam1", "edge1"), False, None),
        (OLD, NEW, ("cam1", "edge1"), True, None),
        (OLD, None, ("cam1", "edge1"), False, "opens no sealed frames: splitbus seal add edge1 --worker"),
        (OLD, NEW, ("cam1",), False, "opens no sealed frames"),
        (OLD, NEW, ("edge1",), False, "does not know the key of cam1: splitbus seal add cam1"),
        (OLD, OTHER, ("cam1", "edge1"), False, "opens no sealed frames"),
        (None, NEW, ("cam1", "edge1"), False, "takes no frames of cam1 that are not sealed: give cam1 its seal_key"),
        (None, NEW, ("edge1",), True, "takes no frames of cam1 that are not sealed"),
    ],
)
def test_plans_lead_only_where_frames_are_taken(
    device: bytes | None, worker: bytes | None, listed: tuple[str, ...], required: bool, objection: str | None
) -> None:
    keys = EMPTY
    for node, role, public in (("cam1", "device", OLD), ("edge1", "worker", NEW)):
        if node in listed:
            keys = with_key(keys, node, role, public, NOW)  # type: ignore[arg-type]
    known = read_keys(with_policy(keys, NOW, required=required))
    found = sealing_objection(known, view("cam1", "device", device), view("edge1", "edge", worker))
    assert (found is None) == (objection is None)
    assert (objection or "") in (found or "")


def test_without_a_list_a_camera_that_seals_is_planned_alone() -> None:
    assert sealing_objection(Known(), view("cam1", "device", OLD), view("edge1", "edge", NEW))
