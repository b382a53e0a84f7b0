"""Sealing between nodes of a site: what goes in comes out once, at the right end, and nothing else does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgpack
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.packets import FRAME, PACKETS, SEAL_SECRETS, SEALED_JOB, SEALED_RESULT, SPENT, job
from tests.schemas.golden import GOLDEN
from tests.schemas.wire import seal, take_apart

from splitbus_gateway.signing import Signer
from splitbus_runtime.hpke import Secret
from splitbus_runtime.keyring import Keyring, read_keys
from splitbus_runtime.sealing import MAX_SESSIONS_OF_NODE, Sealer
from splitbus_runtime.trust import Trust
from splitbus_schemas.errors import DecodeError, SealError, SignatureError
from splitbus_schemas.limits import MAX_SEALED_NODES
from splitbus_schemas.messages import KeyList, NodeKeys, NodeStatus
from splitbus_schemas.packet import decode, encode, pack_tensor
from splitbus_schemas.packet_types import Job, Packet, Result, Sealed
from splitbus_schemas.seal_keys import key_id, read_public, read_secret, write_public, write_secret
from splitbus_schemas.topics import KEYS

SECRETS = {name: Secret.generate() for name in ("cam1", "cam2", "edge1", "cloud1")}
GATEWAY = Signer(Ed25519PrivateKey.generate())
TOPIC = KEYS.at("home")


def listed(secrets: dict[str, Secret] = SECRETS, *, epoch: int = 1) -> KeyList:
    return KeyList(
        epoch=epoch,
        nodes=[
            NodeKeys(node=n, role="device" if "cam" in n else "worker", keys=[write_public(s.public)])
            for n, s in secrets.items()
        ],
    )


class Nodes:
    """A site's nodes, each with its sealer, and all with the same list."""

    def __init__(self, secrets: dict[str, Secret] = SECRETS, **options: int) -> None:
        self.sealers = {name: self.sealer(name, secret, **options) for name, secret in secrets.items()}
        self.meet()

    def sealer(self, name: str, secret: Secret, **options: int) -> Sealer:
        keyring = Keyring(Trust([GATEWAY.public]), site="home", path=Path(os.devnull) / "keys.json")
        keyring.known = read_keys(listed())
        era = FRAME.boot if "cam" in name else None
        return Sealer(secret, keyring, site="home", node=name, era=era, **options)

    def meet(self) -> None:
        """Everybody hears everybody's status."""
        for name, sealer in self.sealers.items():
            status = NodeStatus(state="ready", node=name, boot="b", tier="edge", seal=sealer.state)
            for other in self.sealers.values():
                other.note(status)

    def __getitem__(self, name: str) -> Sealer:
        return self.sealers[name]

    def job(self, seq: int = 1) -> Job:
        frame = replace(FRAME, seq=seq)
        return replace(SEALED_JOB, frame=frame, answer=self["cam1"].key)


def over_the_wire(packet: Packet) -> Sealed:
    found = decode(encode(packet))
    assert isinstance(found, Sealed)
    return found


def refused(counter: str, act: Callable[[], object]) -> str:
    with pytest.raises(SealError) as raised:
        act()
    assert raised.value.counter == counter
    return str(raised.value)


def test_a_frame_on_its_way_over_two_workers_and_back() -> None:
    nodes = Nodes()
    sent = nodes.job()
    first = nodes["edge1"].open(over_the_wire(nodes["cam1"].seal_for_worker(sent, "edge1")))
    assert first == sent
    onward = replace(sent, route=sent.route[1:], spent=SPENT)
    second = nodes["cloud1"].open(over_the_wire(nodes["edge1"].seal_for_worker(onward, "cloud1")))
    assert second == onward
    spent = (*SPENT, replace(SPENT[1], node="cloud1"))
    answer = Result(sent.frame, sent.plan, sent.epoch, 1, sent.tensors, spent)
    assert nodes["cam1"].open(over_the_wire(nodes["cloud1"].seal_answer(answer, sent.answer))) == answer


def test_everything_but_the_tensors_is_in_clear() -> None:
    nodes = Nodes()
    sent = nodes.job()
    sealed = over_the_wire(nodes["cam1"].seal_for_worker(sent, "edge1"))
    bare = [replace(tensor, data=b"") for tensor in sealed.clear.tensors]
    assert replace(sealed.clear, tensors=()) == replace(sent, tensors=())
    assert bare == [replace(tensor, data=b"") for tensor in sent.tensors]
    assert bytes(sent.tensors[0].data) not in encode(sealed)


def test_the_golden_vectors_are_opened_as_ever() -> None:
    """WIRE-64 to WIRE-66, with the secrets that tests/packets.py has."""
    info = b"splitbus/v1 sealed\nhome\n"
    for name, sender, receiver, era, expected in (
        ("sealed-job", "cam1", "edge1", "0123456789abcdef", SEALED_JOB),
        ("sealed-result", "edge1", "cam1", FRAME.boot, SEALED_RESULT),
    ):
        stored = (GOLDEN / f"packet-{name}.bin").read_bytes()
        kind, header, body = take_apart(stored)
        assert kind == {"sealed-job": 7, "sealed-result": 8}[name]
        by, key, era_told, share, number = header["seal"]
        assert (by, key, era_told) == (sender, key_id(SEAL_SECRETS[sender].public), era)
        bound = info + f"{sender}\n{receiver}\n{era}".encode()
        context = SEAL_SECRETS[receiver].receive_from(SEAL_SECRETS[sender].public, share, bound)
        plain = context.open(number, bytes([kind]) + stored[24 : len(stored) - len(body)], body)
        assert plain == b"".join(bytes(tensor.data) for tensor in expected.tensors)


def test_any_bit_flipped_is_refused_though_the_checksum_is_right() -> None:
    """Every bit of header, body and tag, one by one: none is opened, none makes the node remember anything."""
    nodes = Nodes()
    data = encode(nodes["cam1"].seal_for_worker(nodes.job(), "edge1"))
    kind, _, body = take_apart(data)
    header = data[24 : len(data) - len(body)]
    whole = bytearray(header + body)
    opened = 0
    for bit in range(len(whole) * 8):
        whole[bit // 8] ^= 1 << bit % 8
        damaged = seal(kind, bytes(whole[: len(header)]), bytes(whole[len(header) :]), packed=True)
        try:
            found = decode(damaged)
            assert isinstance(found, Sealed)
            nodes["edge1"].open(found)
            opened += 1
        except DecodeError:
            pass
        whole[bit // 8] ^= 1 << bit % 8
    assert opened == 0
    assert len(whole) * 8 > 4000
    assert nodes["edge1"].open(over_the_wire(decode(data))) == nodes.job()


@given(st.integers(0, 2**31), st.integers(1, 255), st.booleans())
def test_a_changed_byte_of_a_large_body_is_refused(at: int, change: int, short: bool) -> None:
    nodes = Nodes()
    tensor = pack_tensor("x", np.zeros(20_000, np.float32), "raw")
    sealed = nodes["cam1"].seal_for_worker(replace(nodes.job(), tensors=(tensor,)), "edge1")
    body = bytearray(sealed.body)
    body[at % len(body)] ^= change
    kept = bytes(body[:-1]) if short else bytes(body)
    refused("unopened", lambda: nodes["edge1"].open(replace(sealed, body=kept)))


@pytest.mark.parametrize("other", [8, 1, 2])
def test_a_packet_of_one_kind_is_none_of_another(other: int) -> None:
    """A job's bytes, called a result, or no longer called sealed."""
    nodes = Nodes()
    _, header, body = take_apart(encode(nodes["cam1"].seal_for_worker(nodes.job(), "edge1")))

    def read() -> None:
        found = decode(seal(other, header, body))
        assert isinstance(found, Sealed)
        nodes["edge1"].open(found)

    with pytest.raises(DecodeError):
        read()


def test_each_packet_is_opened_once_in_any_order() -> None:
    nodes = Nodes()
    sent = [nodes["cam1"].seal_for_worker(nodes.job(seq), "edge1") for seq in range(20)]
    assert {packet.seal.number for packet in sent} == set(range(20))
    assert len({packet.seal.share for packet in sent}) == 1
    for packet in (*sent[10:], *sent[:10]):
        assert nodes["edge1"].open(packet) == replace(nodes.job(), frame=packet.clear.frame)
    for packet in sent:
        assert "came before" in refused("replayed", partial(nodes["edge1"].open, packet))


def test_a_copy_for_another_worker_is_another_packet() -> None:
    """Hedged: both run it. But nobody can take one worker's copy to the other."""
    nodes = Nodes()
    copies = [nodes["cam1"].seal_for_worker(nodes.job(), node) for node in ("edge1", "cloud1")]
    assert [nodes[node].open(copy) for node, copy in zip(("edge1", "cloud1"), copies, strict=True)] == [nodes.job()] * 2
    refused("unopened", lambda: nodes["cloud1"].open(copies[0]))


def test_nobody_but_a_worker_sends_for_others() -> None:
    nodes = Nodes()
    false = replace(nodes.job(), spent=(replace(SPENT[0], node="cam2"),))
    assert "cam2 is no worker" in refused(
        "unopened", lambda: nodes["edge1"].open(nodes["cam2"].seal_for_worker(false, "edge1"))
    )
    nodes["cam2"]._secret = nodes["cam1"]._secret  # even with its key, under its own name
    nodes["cam2"]._outgoing.clear()
    refused("unopened", lambda: nodes["edge1"].open(nodes["cam2"].seal_for_worker(false, "edge1")))
    by_other = replace(nodes.job(), spent=SPENT)
    assert "was last at edge1, but cloud1 sealed it" in refused(
        "unopened", lambda: nodes["edge1"].open(nodes["cloud1"].seal_for_worker(by_other, "edge1"))
    )
    nodes = Nodes()
    answer = replace(SEALED_RESULT, spent=(*SPENT, replace(SPENT[0], node="cam2")))
    assert "is no worker" in refused(
        "unopened", lambda: nodes["cam1"].open(nodes["cam2"].seal_answer(answer, nodes["cam1"].key))
    )


def test_keys_that_the_list_does_not_have_are_nobodys() -> None:
    nodes = Nodes()
    stranger = nodes.sealer("cam1", Secret.generate())
    stranger.note(NodeStatus(state="ready", node="edge1", boot="b", tier="edge", seal=nodes["edge1"].state))
    packet = stranger.seal_for_worker(nodes.job(), "edge1")
    assert "not in the gateway's list" in refused("unopened", lambda: nodes["edge1"].open(packet))
    named = replace(packet, seal=replace(packet.seal, key=nodes["cam1"].key))
    refused("unopened", lambda: nodes["edge1"].open(named))
    false = NodeStatus(state="ready", node="edge1", boot="b", tier="edge", seal=stranger.state)
    nodes["cam1"].note(false)  # anyone may write a status
    assert not nodes["cam1"].reaches("edge1")
    assert "splitbus seal add edge1" in refused(
        "unsealable", lambda: nodes["cam1"].seal_for_worker(nodes.job(), "edge1")
    )
    refused("unsealable", lambda: nodes["edge1"].seal_answer(SEALED_RESULT, "0" * 16))


def test_a_camera_is_no_worker_whatever_its_status_says() -> None:
    nodes = Nodes()
    assert nodes["cam1"].reaches("edge1")
    assert not nodes["cam1"].reaches("cam2")


def test_what_was_sealed_for_an_earlier_life_is_not_opened() -> None:
    nodes = Nodes()
    packet = nodes["cam1"].seal_for_worker(nodes.job(), "edge1")
    nodes.sealers["edge1"] = nodes.sealer("edge1", SECRETS["edge1"])
    assert "an earlier life of edge1" in refused("unopened", lambda: nodes["edge1"].open(packet))
    false = replace(packet, seal=replace(packet.seal, era=nodes["edge1"].state.era))
    refused("unopened", lambda: nodes["edge1"].open(false))
    nodes.meet()
    again = nodes["cam1"].seal_for_worker(nodes.job(), "edge1")
    assert again.seal.share != packet.seal.share
    assert nodes["edge1"].open(again) == nodes.job()


def test_sessions_are_bounded_and_an_ended_one_is_not_taken_up_again() -> None:
    """A camera that starts over and over; then so often that the worker begins a new era, and forgets."""
    nodes = Nodes(max_ended=20)
    told = []
    nodes["edge1"].renewed = lambda: told.append(nodes["edge1"].state.era)
    era = nodes["edge1"].state.era
    first: Sealed | None = None
    for start in range(MAX_SESSIONS_OF_NODE + 20):
        nodes.sealers["cam1"] = nodes.sealer("cam1", SECRETS["cam1"])
        nodes.meet()
        packet = nodes["cam1"].seal_for_worker(nodes.job(start), "edge1")
        first = first or packet
        assert nodes["edge1"].open(packet)
        assert len(nodes["edge1"]._incoming) <= MAX_SESSIONS_OF_NODE
    assert first is not None
    assert not told
    refused("replayed", lambda: nodes["edge1"].open(first))
    nodes.sealers["cam1"] = nodes.sealer("cam1", SECRETS["cam1"])
    nodes.meet()
    assert nodes["edge1"].open(nodes["cam1"].seal_for_worker(nodes.job(), "edge1"))
    assert told == [nodes["edge1"].state.era] != [era]
    assert not nodes["edge1"]._ended
    refused("unopened", lambda: nodes["edge1"].open(first))
    nodes.meet()
    assert nodes["edge1"].open(nodes["cam1"].seal_for_worker(nodes.job(), "edge1"))


def test_packets_that_are_not_authentic_take_no_memory() -> None:
    nodes = Nodes()
    for _ in range(50):
        packet = nodes.sealer("cam1", Secret.generate())
        packet.note(NodeStatus(state="ready", node="edge1", boot="b", tier="edge", seal=nodes["edge1"].state))
        false = packet.seal_for_worker(nodes.job(), "edge1")
        named = replace(false, seal=replace(false.seal, key=nodes["cam1"].key))
        refused("unopened", partial(nodes["edge1"].open, named))
    assert not nodes["edge1"]._incoming
    assert not nodes["edge1"]._ended
    for number in range(MAX_SEALED_NODES + 10):
        nodes["cam1"].note(
            NodeStatus(state="ready", node=f"n{number}", boot="b", tier="edge", seal=nodes["edge1"].state)
        )
    assert len(nodes["cam1"]._states) == MAX_SEALED_NODES


def test_a_new_list_ends_the_sessions_of_keys_that_it_lacks() -> None:
    nodes = Nodes()
    packets = [nodes["cam1"].seal_for_worker(nodes.job(seq), "edge1") for seq in range(2)]
    assert nodes["edge1"].open(packets[0])
    without = {name: secret for name, secret in SECRETS.items() if name != "cam1"}
    keyring = nodes["edge1"].keyring
    keyring.take(GATEWAY.seal(TOPIC, listed(without, epoch=2)))
    assert not nodes["edge1"]._incoming
    refused("unopened", lambda: nodes["edge1"].open(packets[1]))
    keyring.take(GATEWAY.seal(TOPIC, listed(epoch=3)))  # it is back
    refused("replayed", lambda: nodes["edge1"].open(packets[0]))
    nodes.sealers["cam1"] = nodes.sealer("cam1", SECRETS["cam1"])
    nodes.meet()
    assert nodes["edge1"].open(nodes["cam1"].seal_for_worker(nodes.job(5), "edge1")) == nodes.job(5)


def test_threads_never_share_a_number() -> None:
    nodes = Nodes()
    made: list[Sealed] = []

    def work() -> None:
        made.extend(nodes["cam1"].seal_for_worker(nodes.job(), "edge1") for _ in range(100))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({packet.seal.number for packet in made}) == len(made) == 800
    assert len({packet.seal.share for packet in made}) == 1


def test_a_list_is_kept_on_disk_and_an_older_one_is_refused_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "store" / "keys.json"

    def keyring(key: str = GATEWAY.public) -> Keyring:
        return Keyring(Trust([key]), site="home", path=path)

    first = keyring()
    assert first.known.epoch == 0
    old, new = GATEWAY.seal(TOPIC, listed(epoch=1)), GATEWAY.seal(TOPIC, listed(epoch=7))
    first.take(old)
    first.take(new)
    for again in (first, keyring()):
        assert again.known.epoch == 7
        refused("stale_keys", partial(again.take, old))
        again.take(b"")
        with pytest.raises(SignatureError):
            again.take(Signer(Ed25519PrivateKey.generate()).seal(TOPIC, listed(epoch=9)))
        with pytest.raises(SignatureError):
            again.take(GATEWAY.seal(KEYS.at("other"), listed(epoch=9)))
        assert again.known.epoch == 7
        assert again.known.must_seal("cam1")
        assert not again.known.must_seal("edge1")
        assert not again.known.must_seal("cam9")
    assert keyring(Signer(Ed25519PrivateKey.generate()).public).known.epoch == 0  # of a gateway that is trusted no more
    path.write_bytes(new[:40])
    assert keyring().known.epoch == 0


def test_keys_as_text(tmp_path: Path) -> None:
    secret = Secret.generate()
    assert read_public(write_public(secret.public)) == secret.public
    assert read_secret(write_secret(secret.data)) == secret.data
    path = tmp_path / "seal.key"
    path.write_text(f"{write_secret(secret.data)}\n")
    path.chmod(0o600)
    assert read_secret(path) == secret.data
    assert Secret.of(read_secret(path)).public == secret.public


def test_the_body_of_a_sealed_packet_is_one_piece_with_a_tag() -> None:
    """WIRE-65: whatever its tensors; an empty one has the tag alone."""
    nodes = Nodes()
    for tensors in ((), (SEALED_JOB.tensors * 3)):
        sent = replace(nodes.job(), tensors=tuple(replace(t, name=f"{i}") for i, t in enumerate(tensors)))
        sealed = over_the_wire(nodes["cam1"].seal_for_worker(sent, "edge1"))
        assert len(sealed.body) == sum(len(tensor.data) for tensor in tensors) + 16
        assert nodes["edge1"].open(sealed) == sent
    kind, header, body = take_apart(encode(sealed))
    with pytest.raises(DecodeError, match="its tag alone needs 16"):
        decode(seal(kind, header, body[:15]))
    assert msgpack.unpackb(sealed.header)["answer"] == nodes["cam1"].key
    assert isinstance(PACKETS["sealed-job"], Sealed)
    assert job(()).answer == ""
