"""Sealed frames through a real broker whose owner records everything, plays it again, changes it and forges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.brokers import Broker
from tests.device.rig import CAMERA, Site, made_up, plain, same, wait_for
from tests.device.sealed_site import SealedSite, Thief, keyring, sealer

from splitbus_device import InferenceSession
from splitbus_gateway.signing import Signer
from splitbus_runtime.hpke import Secret
from splitbus_schemas import messages as m
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.packet_types import Job, Refusal, Result, Sealed, Tensor
from splitbus_schemas.topics import JOB, KEYS, REPLY

pytestmark = pytest.mark.broker

GATEWAY = Signer(Ed25519PrivateKey.generate())
CLOSE = 1e-5


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Iterator[SealedSite]:
    made = Site(broker, tmp_path, signer=GATEWAY)
    yield SealedSite(made)
    made.close()


@pytest.fixture
def thief(broker: Broker, site: SealedSite) -> Iterator[Thief]:
    with Thief(broker, site.site.name) as made:
        yield made


def shoot(session: InferenceSession, chain: Path, seed: int = 0) -> str:
    """A frame, answered as the model answers it; the route."""
    feeds = made_up(session, seed)
    same(session.run(None, feeds), plain(chain).run(None, feeds), CLOSE)
    assert session.last_answer is not None
    return ">".join(session.last_answer.route)


def planned(site: SealedSite, chain: Path) -> tuple[m.Plan, list[str]]:
    """A camera and a worker that both have keys, a plan over the worker, and its slices."""
    site.enrol(CAMERA)
    site.enrol("edge1")
    plan = site.site.plan(site.site.register(chain), [("edge1", 2)])
    return plan, site.site.stage_slices(plan)


def follow(site: SealedSite, session: InferenceSession, plan: m.Plan, chain: Path) -> None:
    """Until frames of the camera go over the worker."""
    site.site.follow(session, plan)
    site.wait_open(session, "edge1")
    wait_for("it goes over the bus", lambda: shoot(session, chain) == "cam>edge1")


def goes(session: InferenceSession, chain: Path, route: str, seed: int) -> bool:
    return shoot(session, chain, seed) == route


def counted(site: SealedSite, what: str) -> bool:
    return site.site.counters("edge1").get(what) == 1


def traces(session: InferenceSession, frames: int) -> list[bytes]:
    """Stretches of the activations that were sent, as the session made them."""
    uplink = session._uplink
    assert uplink is not None
    assert uplink.active is not None
    assert uplink.active.head is not None
    outputs = [array for seed in range(frames) for _, array, _ in uplink.active.head.run(made_up(session, seed))]
    return [array.tobytes()[begin : begin + 16] for array in outputs for begin in range(0, array.nbytes - 16, 64)]


def test_the_brokers_owner_reads_nothing_of_what_it_carries(site: SealedSite, thief: Thief, chain: Path) -> None:
    """Two workers: every hop is sealed, and so is the answer. What is in clear is what an operator needs."""
    for node in (CAMERA, "edge1", "cloud1"):
        site.enrol(node)
    card = site.site.register(chain)
    plan = site.site.plan(card, [("edge1", 2), ("cloud1", 4)])
    first, second = site.site.stage_slices(plan), site.site.stage_slices(plan, "cloud1")
    with (
        site.worker("edge1", *first),
        site.worker("cloud1", *second),
        site.camera(chain) as session,
    ):
        site.site.follow(session, plan)
        site.wait_open(session, "edge1", "cloud1")
        for seed in range(4):
            wait_for("it goes over the bus", partial(goes, session, chain, "cam>edge1>cloud1", seed))
        wait_for("it was all recorded", lambda: len(thief.packets("reply")) >= 4)
        jobs = [packet for _, packet in thief.packets("job") if not hasattr(packet, "pad")]
        answers = [packet for _, packet in thief.packets("reply") if not hasattr(packet, "pad")]
        assert len(jobs) >= 8
        assert len(answers) >= 4
        assert all(isinstance(packet, Sealed) for packet in (*jobs, *answers))
        sealed = [packet for packet in jobs if isinstance(packet, Sealed)]
        assert {packet.seal.sender for packet in sealed} == {CAMERA, "edge1"}
        assert all(packet.clear.plan == plan.plan and packet.clear.frame.device == CAMERA for packet in sealed)
        needles = traces(session, 4)
        assert len(needles) > 100
        carried = b"\0".join(delivery.payload for delivery in thief.recorded)
        assert len(carried) > 10_000
        assert not [needle for needle in needles if any(needle) and needle in carried]
        logits = plain(chain).run(None, made_up(session, 0))[0]
        assert logits.tobytes()[:16] not in carried


def test_the_same_search_finds_activations_that_are_not_sealed(site: SealedSite, thief: Thief, chain: Path) -> None:
    """Else the test above could not fail."""
    card = site.site.register(chain)
    plan = site.site.plan(card, [("edge1", 2)])
    with site.site.worker("edge1", *site.site.stage_slices(plan)), site.site.session(chain) as session:
        site.site.follow(session, plan)
        assert shoot(session, chain) == "cam>edge1"
        wait_for("it was recorded", lambda: thief.packets("job"))
        job = next(packet for _, packet in thief.packets("job") if isinstance(packet, Job))
        carried = b"".join(tensor.data for tensor in job.tensors)
        found = [needle for needle in traces(session, 1) if any(needle) and needle in carried]
        assert len(found) > 20


def test_a_recorded_job_is_run_once_and_its_replay_is_counted_and_told(
    site: SealedSite, thief: Thief, chain: Path
) -> None:
    plan, slices = planned(site, chain)
    with site.camera(chain) as session:
        with site.worker("edge1", *slices) as worker:
            follow(site, session, plan, chain)
            jobs = wait_for("it was recorded", lambda: thief.on("job"))
            taken = worker.agent.counters["jobs"]
            for delivery in jobs:
                thief.play(delivery.topic, delivery.payload)
            wait_for("the replay is counted", lambda: site.site.counters("edge1").get("replayed"))
            assert any("came before" in reason for reason in site.site.alerts("edge1"))
            assert worker.agent.counters["jobs"] == taken
            assert shoot(session, chain, 1) == "cam>edge1"
        with site.worker("edge1", *slices) as worker:  # it remembers nothing
            for delivery in jobs:
                thief.play(delivery.topic, delivery.payload)
            wait_for("it is not opened", lambda: site.site.counters("edge1").get("unopened"))
            assert any("an earlier life of edge1" in reason for reason in site.site.alerts("edge1"))
            assert "jobs" not in worker.agent.counters
            wait_for("the camera goes on", lambda: shoot(session, chain, 2) == "cam>edge1")


@pytest.mark.parametrize("place", ["header", "body", "tag"])
def test_a_changed_bit_is_refused(site: SealedSite, thief: Thief, chain: Path, place: str) -> None:
    plan, slices = planned(site, chain)
    with (
        site.worker("edge1", *slices) as worker,
        site.camera(chain) as session,
    ):
        follow(site, session, plan, chain)
        topic, packet = next((t, p) for t, p in thief.packets("job") if isinstance(p, Sealed))
        body, header = bytearray(packet.body), packet.header
        if place == "header":
            clear = b"\xa6budget\xce"  # the time that is left, as 32 bits
            at = header.index(clear) + len(clear) + 3
            header = header[:at] + bytes([header[at] ^ 1]) + header[at + 1 :]
        else:
            body[0 if place == "body" else -1] ^= 1
        taken = worker.agent.counters["jobs"]
        forged = replace(packet, header=header, body=bytes(body))
        thief.send(topic, forged)
        wait_for("it is refused", lambda: site.site.counters("edge1").get("replayed"))
        renumbered = renumber(forged, 500)
        thief.send(topic, renumbered)  # the number is in the header, too
        wait_for("it is not opened", lambda: site.site.counters("edge1").get("unopened"))
        assert worker.agent.counters["jobs"] == taken


def renumber(packet: Sealed, number: int) -> Sealed:
    """The packet under a number that did not come yet, which a thief may write but not seal."""
    import msgpack  # noqa: PLC0415

    header = msgpack.unpackb(packet.header)
    header["seal"][4] = number
    return replace(packet, header=msgpack.packb(header))


def test_answers_that_are_forged_recorded_or_in_clear_are_none(site: SealedSite, thief: Thief, chain: Path) -> None:
    site.enrol(CAMERA)
    site.enrol("edge1")
    site.enrol("cam2")
    card = site.site.register(chain)
    plan = site.site.plan(card, [("edge1", 2)])
    slices = site.site.stage_slices(plan)
    with site.camera(chain) as session:
        with site.worker("edge1", *slices):
            follow(site, session, plan, chain)
            wait_for("it was recorded", lambda: thief.packets("reply"))
        topic, recorded = next((t, p) for t, p in thief.packets("reply") if isinstance(p, Sealed))
        feeds = made_up(session, 5)
        (expected,) = plain(chain).run(None, feeds)
        site.site.say_status("edge1", "ready")  # it is gone, and the thief answers in its place
        forged = Result(recorded.clear.frame, plan.plan, plan.epoch, 1, (), recorded.clear.spent)
        thief.send(topic, forged)
        wait_for("an answer in clear is refused", lambda: site.site.counters().get("unsealed") == 1)
        thief.send(topic, recorded)
        wait_for("a recorded one is refused", lambda: site.site.counters().get("replayed") == 1)
        later = renumber(replace(recorded, clear=replace(recorded.clear)), 77)
        thief.send(topic, later)
        wait_for("a changed one is refused", lambda: site.site.counters().get("unopened") == 1)
        (given,) = session.run(None, feeds)
        assert given.tobytes() == expected.tobytes()


def test_an_answer_of_an_earlier_life_is_not_opened(site: SealedSite, thief: Thief, chain: Path) -> None:
    """Though the broker brings it under the topic of the new one."""
    plan, slices = planned(site, chain)
    with site.worker("edge1", *slices):
        with site.camera(chain) as session:
            follow(site, session, plan, chain)
            wait_for("it was recorded", lambda: thief.packets("reply"))
        recorded = next(p for _, p in thief.packets("reply") if isinstance(p, Sealed))
        with site.camera(chain) as session:
            assert session._uplink is not None
            thief.send(REPLY.at(site.site.name, node=CAMERA, boot=session._uplink._boot), recorded)
            wait_for("it is not opened", lambda: site.site.counters().get("unopened") == 1)


def test_a_worker_without_the_key_opens_nothing_and_gets_nothing(site: SealedSite, thief: Thief, chain: Path) -> None:
    """Nor does one with a key that the gateway did not list, whatever its status says."""
    site.enrol(CAMERA)
    site.enrol("edge1", listed=False)
    card = site.site.register(chain)
    plan = site.site.plan(card, [("edge1", 2)])
    slices = site.site.stage_slices(plan)
    for settings in ({}, {"seal_key": site.secrets["edge1"]}):
        with site.site.worker("edge1", *slices, gateway_key=GATEWAY.public, **settings), site.camera(chain) as session:
            site.site.follow(session, plan)
            wait_for(
                "its status is here",
                lambda: site.site.said(m.NodeStatus, f"splitbus/v1/{site.site.name}/node/edge1/status"),
            )
            assert shoot(session, chain) == CAMERA
            assert session.last_answer is not None
            assert session.last_answer.reason == "a worker on every route cannot open sealed frames"
            assert not [p for _, p in thief.packets("job") if isinstance(p, Job | Sealed)]


def test_a_sealed_frame_at_a_worker_without_a_key_is_refused_with_the_remedy(
    site: SealedSite, thief: Thief, chain: Path
) -> None:
    plan, slices = planned(site, chain)
    with site.camera(chain) as session:
        with site.worker("edge1", *slices):
            follow(site, session, plan, chain)
            jobs = wait_for("it was recorded", lambda: thief.on("job"))
        with site.site.worker("edge1", *slices):
            for delivery in jobs:
                thief.play(delivery.topic, delivery.payload)
            wait_for("it is counted", lambda: site.site.counters("edge1").get("unopened"))
            assert any(
                "edge1 has no seal_key: splitbus seal add edge1 --worker" in r for r in site.site.alerts("edge1")
            )
            wait_for("the sender is told", lambda: [p for _, p in thief.packets("reply") if isinstance(p, Refusal)])
            refusal = next(p for _, p in thief.packets("reply") if isinstance(p, Refusal))
            assert (refusal.node, refusal.reason) == ("edge1", "seal")


def test_a_revoked_camera_is_not_opened_any_more(site: SealedSite, thief: Thief, chain: Path) -> None:
    plan, slices = planned(site, chain)
    with (
        site.worker("edge1", *slices) as worker,
        site.camera(chain) as session,
    ):
        follow(site, session, plan, chain)
        site.revoke(CAMERA)
        site.wait_known(worker)
        taken = worker.agent.counters["jobs"]
        wait_for("it is not opened", lambda: (shoot(session, chain), site.site.counters("edge1").get("unopened"))[1])
        assert any("key" in r and "not in the gateway's list" in r for r in site.site.alerts("edge1"))
        assert shoot(session, chain) == CAMERA
        assert worker.agent.counters["jobs"] == taken
        assert len([p for _, p in thief.packets("job") if isinstance(p, Sealed)]) > 1


def test_keys_change_in_a_running_site(site: SealedSite, chain: Path) -> None:
    """First the worker's, then the camera's: the old one counts until it is retired, and not after."""
    plan, slices = planned(site, chain)
    with site.camera(chain) as session:
        with site.worker("edge1", *slices):
            follow(site, session, plan, chain)
            site.enrol("edge1")  # the next key is listed, and the worker still has its old one
            wait_for("the camera knows", lambda: sealer(session).keyring.known.epoch == site.keys.epoch)
            assert shoot(session, chain) == "cam>edge1"
        with site.worker("edge1", *slices) as worker:  # now it has the new one
            wait_for("it goes over the bus", lambda: shoot(session, chain) == "cam>edge1")
            site.retire("edge1")
            old = site.secrets[CAMERA]
            site.enrol(CAMERA)
            wait_for("all know", lambda: sealer(session).keyring.known.epoch == site.keys.epoch)
            wait_for("it still goes over the bus", lambda: shoot(session, chain) == "cam>edge1")
            session.close()
            with site.camera(chain) as renewed:
                wait_for("the plan is here", lambda: renewed.plan == plan.plan)
                site.wait_open(renewed, "edge1")
                wait_for("it goes over the bus", lambda: shoot(renewed, chain) == "cam>edge1")
                site.retire(CAMERA)
                site.wait_known(worker)
                assert shoot(renewed, chain) == "cam>edge1"
            with site.camera(chain, seal_key=old) as stolen:
                wait_for("the plan is here", lambda: stolen.plan == plan.plan)
                site.wait_open(stolen, "edge1")
                assert shoot(stolen, chain) == CAMERA
                wait_for("it is counted", lambda: site.site.counters("edge1").get("unopened"))


def test_one_camera_seals_and_another_does_not(site: SealedSite, thief: Thief, chain: Path) -> None:
    """Until the site says that all have to; and nobody sends in clear for the one that seals."""
    site.enrol(CAMERA)
    site.enrol("edge1")
    card = site.site.register(chain)
    plan, other = site.site.plan(card, [("edge1", 2)]), site.site.plan(card, [("edge1", 2)], device="cam2")
    slices = [*site.site.stage_slices(plan), *site.site.stage_slices(other)]
    with (
        site.worker("edge1", *slices) as worker,
        site.camera(chain) as session,
        site.site.session(chain, device="cam2", store=site.site.folder / "cam2-store") as clear,
    ):
        site.site.follow(session, plan)
        site.site.follow(clear, other)
        site.wait_open(session, "edge1")
        wait_for("one goes over the bus", lambda: shoot(session, chain) == "cam>edge1")
        wait_for("so does the other", lambda: shoot(clear, chain) == "cam2>edge1")
        topic, mine = next((t, p) for t, p in thief.packets("job") if isinstance(p, Job))
        frame = replace(mine.frame, device=CAMERA)
        reply = REPLY.at(site.site.name, node=CAMERA, boot=frame.boot)
        taken = worker.agent.counters["jobs"]
        thief.send(JOB.at(site.site.name, node="edge1", device=CAMERA), replace(mine, frame=frame, reply_to=reply))
        wait_for("it is refused", lambda: site.site.counters("edge1").get("unsealed") == 1)
        thief.send(topic, mine)
        wait_for("a frame in clear comes in once", lambda: site.site.counters("edge1").get("replayed") == 1)
        assert worker.agent.counters["jobs"] == taken
        site.require()
        site.wait_known(worker)
        assert shoot(clear, chain) == "cam2"
        wait_for("it is counted", lambda: site.site.counters("edge1").get("unsealed") == 2)
        assert shoot(session, chain) == "cam>edge1"


def test_no_list_of_keys_but_the_gateways_newest_is_believed(site: SealedSite, thief: Thief, chain: Path) -> None:
    plan, slices = planned(site, chain)
    old = site.keys
    own = Secret.generate()
    with (
        site.worker("edge1", *slices) as worker,
        site.camera(chain) as session,
    ):
        site.site.follow(session, plan)
        site.wait_open(session, "edge1")
        site.revoke(CAMERA)
        site.wait_known(worker)
        topic = KEYS.at(site.site.name)
        thief.play(topic, GATEWAY.seal(topic, old))
        for signer in (Signer(), Signer(Ed25519PrivateKey.generate())):
            evil = old.model_copy(update={"epoch": 10**12})
            thief.play(topic, signer.seal(topic, evil))
        thief.play(topic, b"")
        for what in ("stale_keys", "unsigned", "forged"):
            wait_for(what, partial(counted, site, what))
        assert keyring(worker).known.epoch == site.keys.epoch
        assert own.public not in keyring(worker).known.keys.values()
    with site.worker("edge1") as again:  # the list is kept on its disk
        assert keyring(again).known.epoch == site.keys.epoch


def test_a_camera_cannot_seal_for_another(site: SealedSite, thief: Thief, chain: Path) -> None:
    """An enrolled camera, with every right at the broker besides, signs nobody's frames but its own."""
    for node in (CAMERA, "cam2", "edge1"):
        site.enrol(node)
    card = site.site.register(chain)
    plan = site.site.plan(card, [("edge1", 2)])
    with (
        site.worker("edge1", *site.site.stage_slices(plan)) as worker,
        site.camera(chain) as session,
        site.camera(chain, "cam2") as second,
    ):
        follow(site, session, plan, chain)
        site.wait_open(second, "edge1")
        topic, packet = next((t, p) for t, p in thief.packets("job") if isinstance(p, Sealed))
        assert isinstance(packet.clear, Job)
        tensor = Tensor("x", "float32", (1,), "raw", np.zeros(1, np.float32).tobytes())
        false = replace(packet.clear, tensors=(tensor,), frame=replace(packet.clear.frame, seq=10**6))
        thief.send(topic, sealer(second).seal_for_worker(false, "edge1"))
        wait_for("it is refused", lambda: site.site.counters("edge1").get("unopened") == 1)
        assert any("cam2 is no worker" in reason for reason in site.site.alerts("edge1"))
        assert worker.agent.counters["jobs"] >= 1


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"seal_key": "x25519-secret:AAAA", "gateway_key": GATEWAY.public}, "holds no secret key"),
        ({"seal_key": "/nowhere", "gateway_key": GATEWAY.public}, "/nowhere cannot be read"),
        ({"seal_key": "x25519-secret:AAAA"}, "gateway_key is not"),
    ],
)
def test_a_key_that_cannot_be_used_is_said_at_once(
    site: SealedSite, chain: Path, settings: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as raised:
        site.site.session(chain, **settings)
    assert "AAAA" not in str(raised.value)


def test_a_key_that_others_may_read_is_refused(site: SealedSite, chain: Path, tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    path.write_text(site.enrol(CAMERA) + "\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        site.site.session(chain, gateway_key=GATEWAY.public, seal_key=path)
    path.chmod(0o600)
    with site.site.session(chain, gateway_key=GATEWAY.public, seal_key=path) as session:
        assert sealer(session).key
