"""Bad input, item by item: a command says one clear sentence and fails; a daemon counts, logs, tells, and goes on."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
import pytest
from tests.brokers import BrokerFactory
from tests.e2e.picture_model import one_thread, picture
from tests.e2e.site import CAMERA, CLOUD, EDGE, MODEL, Site, running, splitbus, wait_for
from tests.models import model, node, save, value
from tests.packets import PACKETS

from splitbus_device import InferenceSession
from splitbus_runtime.store import BlobStore
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.errors import ModelError
from splitbus_schemas.ids import model_key, sha256
from splitbus_schemas.packet import decode, encode, pack_tensor
from splitbus_schemas.packet_types import FrameId, Hop, Job, Refusal
from splitbus_schemas.parts import Assembler

pytestmark = pytest.mark.broker

NOBODY = "mqtt://127.0.0.1:1"
HOSTED_LIMIT = 131_072
"""What the smallest hosted brokers take."""


@pytest.fixture(autouse=True)
def goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test did to the module's site: afterwards frames go over the bus, and all were answered rightly."""
    shared = request.getfixturevalue("site") if "site" in request.fixturenames else None
    if shared is not None:
        shared.settle()
    yield
    if shared is not None:
        shared.settle()
        shared.camera.check()


def refused(*arguments: object, names: str, remedy: str = "", **env: str) -> None:
    """A command says one sentence about what it `names`, and fails."""
    done = splitbus(*arguments, **env)
    assert done.returncode not in (0, None), done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.startswith("splitbus: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert names in done.stderr, done.stderr
    assert remedy in done.stderr, done.stderr


def complaint(site: Site, who: str, what: str, act: Callable[[], object]) -> m.Alert:
    """The alert that a node publishes when `act` was done to it; it must have counted and logged it as well."""
    mark, before = site.watch.mark, site.watch.counter(who, what)
    act()
    alerts = wait_for(f"{who} tells {what}", lambda: site.watch.alerts(who, what, mark), 10)
    wait_for(f"{who} counts {what}", lambda: site.watch.counter(who, what) > before, 5)
    if who in site.processes:
        log = site.log(who).read_text()
        assert f"{what}: {alerts[0].reason}" in log
        assert "Traceback" not in log
    return alerts[0]


def publish(site: Site, topic: str, payload: bytes, *, retain: bool = False) -> Callable[[], object]:
    return lambda: site.watch.bus.publish(topic, payload, qos=1, retain=retain)


# A wrong model file


def test_a_wrong_model_file(site: Site, tmp_path: Path) -> None:
    whole = site.model.read_bytes()
    contents = {"text": b"this is no model\n", "empty": b"", "truncated": whole[: len(whole) // 2]}
    for name, content in contents.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    paths = [tmp_path / f"{name}.onnx" for name in (*contents, "missing")]
    for path in (*paths, tmp_path):
        refused("model", "add", "dog", path, "--config", site.config, names=str(path))
        with pytest.raises(ModelError) as error:
            InferenceSession(path, broker=site.broker.url, site=site.name, device="camera9", store=tmp_path / "store")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    for command in ("cuts", "verify"):
        refused(command, tmp_path / "truncated.onnx", names="truncated.onnx")
    listed = json.loads(splitbus("model", "list", "--config", site.config, "--json").stdout)
    assert [record["card"]["name"] for record in listed] == [MODEL]


def test_a_damaged_record_in_the_registry(site: Site) -> None:
    record = site.state_dir / "models" / "cat.json"
    record.write_text('{"name": "cat"')
    site.wait_log("gateway", str(record))
    record.unlink()
    assert "Traceback" not in site.log("gateway").read_text()


# An unsupported graph


def test_an_unsupported_graph(site: Site, tmp_path: Path) -> None:
    teleport = model(
        [node("Teleport", ["x"], ["y"], "t", domain="org.nowhere")],
        [value("x", [1, 4])],
        [value("y", [1, 4])],
        domains=["org.nowhere"],
    )
    path = save(teleport, tmp_path, "teleport.onnx")
    refused("model", "add", "teleport", path, "--config", site.config, names=str(path))
    refused("verify", path, names=str(path))
    with pytest.raises(ModelError, match=r"teleport\.onnx"):
        InferenceSession(path)


# A missing broker


def test_a_missing_broker(site: Site, tmp_path: Path) -> None:
    for command in (["plan", "show"], ["plan", "pin", CAMERA, MODEL, "--local"], ["top", "--once"], ["tap"]):
        refused(*command, "--broker", NOBODY, names="127.0.0.1:1", remedy="start it, or name another with --broker")
    site.start("stray", "worker", "--node=stray", "--broker", NOBODY, "--state-dir", tmp_path / "stray")
    site.wait_log("stray", f"waits for the broker at {NOBODY}: ")
    assert site.processes["stray"].poll() is None
    site.kill("stray")
    assert "Traceback" not in site.log("stray").read_text()
    check_alone(site, broker=NOBODY)


def check_alone(site: Site, *, broker: str) -> None:
    """A camera whose broker does not take it answers alone, with the very bytes of onnxruntime."""
    reference = ort.InferenceSession(str(site.model), one_thread(), providers=["CPUExecutionProvider"])
    with InferenceSession(
        site.model, one_thread(), broker=broker, device="camera9", store=site.folder / "camera9"
    ) as session:
        for index in range(3):
            (outputs,) = session.run(None, {"x": picture(index)})
            assert outputs.tobytes() == reference.run(None, {"x": picture(index)})[0].tobytes()
            assert session.last_answer is not None
            assert session.last_answer.route == ("camera9",)


# A wrong password


def test_a_wrong_password(site: Site, broker_factory: BrokerFactory, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("guess\n")
    who = ["--username", "anna", "--password-file", wrong]
    with broker_factory(users={"anna": "secret"}) as broker:
        refused("plan", "show", "--broker", broker.url, *who, names=broker.url, remedy="check username")
        for daemon in (["worker", "--node=stray"], ["gateway"]):
            node = f"stray-{daemon[0]}"
            site.start(node, *daemon, "--broker", broker.url, *who, "--state-dir", tmp_path / node)
            site.wait_log(node, "refused: ")
            assert site.processes[node].poll() is None
            site.kill(node)
            log = site.log(node).read_text()
            assert "check username" in log
            assert "Traceback" not in log
            assert "guess" not in log
        check_alone(site, broker=broker.url.replace("mqtt://", "mqtt://anna:guess@"))


# A too large payload


def test_a_broker_that_takes_little(broker_factory: BrokerFactory, tmp_path: Path) -> None:
    with (
        broker_factory(f"max_packet_size {HOSTED_LIMIT}") as broker,
        running(broker, tmp_path, workers=((EDGE, "edge"),)) as small,
    ):
        small.settle()
        assert picture(0).nbytes > HOSTED_LIMIT
        done = small.splitbus("plan", "pin", CAMERA, MODEL, "--cut=0", "--codec=raw", *small.options)
        assert done.returncode == 0, done.stderr
        wait_for("whole pictures go over the bus", lambda: _whole(small), 20)
        small.camera.check()
        assert "oversize" not in broker.log()
        assert not small.watch.counter(CAMERA, "too_large")


def _whole(site: Site) -> bool:
    newest = [answer for _, answer in site.camera.answers(max(0, site.camera.asked - 5))]
    return bool(newest) and all((answer.cuts, answer.codecs) == ((0,), ("raw",)) for answer in newest)


def test_a_huge_message_that_is_no_packet(site: Site) -> None:
    topic = topics.JOB.at(site.name, node=EDGE, device="stranger")
    alert = complaint(site, EDGE, "bad_messages", publish(site, topic, secrets.token_bytes(1_000_000)))
    assert alert.topic == topic


# A wrong version


def test_a_packet_of_another_version(site: Site) -> None:
    packet = bytearray(encode(PACKETS["job"]))
    packet[4] = 2
    topic = topics.JOB.at(site.name, node=EDGE, device="cam1")
    alert = complaint(site, EDGE, "bad_messages", publish(site, topic, bytes(packet)))
    assert alert.topic == topic
    assert "version 2, this program speaks 1: upgrade the older side" in alert.reason


def test_a_reply_of_another_version(site: Site) -> None:
    boot = site.watch.last(m.NodeStatus, topics.STATUS.at(site.name, node=CAMERA))
    assert boot is not None
    packet = bytearray(encode(PACKETS["result"]))
    packet[4] = 2
    topic = topics.REPLY.at(site.name, node=CAMERA, boot=boot.boot)
    alert = complaint(site, CAMERA, "bad_messages", publish(site, topic, bytes(packet)))
    assert "version 2" in alert.reason


READERS = {
    "plan": (topics.PLAN, CAMERA, "bad_plans"),
    "work": (topics.WORK, EDGE, "bad_messages"),
    "peers": (topics.PEERS, CAMERA, "bad_messages"),
    "link": (topics.LINK, "gateway", "bad_messages"),
    "pin": (topics.PIN, "gateway", "bad_messages"),
}
"""Topic, who reads it, and what it counts it as."""


@pytest.mark.parametrize("name", READERS)
def test_a_message_of_another_version(site: Site, name: str) -> None:
    kind, reader, what = READERS[name]
    where = {"model": site.key, "peer": CLOUD}
    topic = kind.at(site.name, node=CAMERA if reader == "gateway" else reader,
                    **{field: where[field] for field in kind.fields if field in where})  # fmt: skip
    for document, problem in ((b'{"v": 2}', "version 2, this program speaks 1"), (b"not even JSON", "Invalid JSON")):
        alert = complaint(site, reader, what, publish(site, topic, document))
        assert alert.topic == topic
        assert problem in alert.reason


# A corrupt slice


def pin(site: Site, cut: int, node: str) -> m.SliceManifest:
    """Pin a lossless cut; gives the manifest of the slice behind it once the camera follows."""
    done = site.splitbus("plan", "pin", CAMERA, MODEL, f"--cut={cut}", f"--node={node}", *site.options)
    assert done.returncode == 0, done.stderr
    begin = site.camera.asked
    wait_for(f"frames are cut at {cut}", lambda: flown(site, begin, cut, node))
    plan = site.settled_plan()
    assert plan.routes[0][0].slice is not None
    return m.SliceManifest.from_json(BlobStore(site.state_dir / "blobs").read(plan.routes[0][0].slice))


def flown(site: Site, begin: int, cut: int, node: str) -> bool:
    ways = {(answer.route, answer.cuts) for _, answer in site.camera.answers(begin)}
    return ((CAMERA, node), (cut,)) in ways


def unpin(site: Site) -> None:
    done = site.splitbus("plan", "unpin", CAMERA, MODEL, *site.options)
    assert done.returncode == 0, done.stderr


def damage(path: Path) -> None:
    """Flip bytes in the middle; length and name stay."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(byte ^ 0xFF for byte in content[middle : middle + 8])
    path.write_bytes(content)


@pytest.mark.parametrize("what", ["graph", "weight"])
def test_a_slice_that_rotted_on_the_workers_disk(site: Site, what: str) -> None:
    """The worker notices and fetches it again, instead of giving wrong answers."""
    manifest = pin(site, 2, EDGE)
    blob = manifest.graph if what == "graph" else max(manifest.weights, key=lambda weight: weight.bytes).sha256
    store = BlobStore(site.folder / EDGE)
    site.kill(EDGE)
    damage(store.path(blob))
    begin = site.camera.asked
    site.start_worker(EDGE, "edge")
    wait_for("frames go there again", lambda: flown(site, begin + 8, 2, EDGE))
    assert sha256(store.read(blob)) == blob
    assert f"blob {blob}" in site.log(EDGE).read_text()
    unpin(site)


def test_a_slice_that_rotted_at_the_gateway(site: Site) -> None:
    """No worker runs it, frames are answered all the same, and the gateway makes it again."""
    manifest = pin(site, 6, EDGE)
    kept = BlobStore(site.state_dir / "blobs").path(manifest.graph)
    site.kill(EDGE)
    BlobStore(site.folder / EDGE).discard(manifest.graph)
    damage(kept)
    begin = site.camera.asked
    site.start_worker(EDGE, "edge")
    wait_for("frames go there again", lambda: flown(site, begin + 8, 6, EDGE), 45)
    assert sha256(kept.read_bytes()) == manifest.graph
    unpin(site)


# A shape that does not fit


@pytest.mark.parametrize(
    "feeds",
    [
        {"x": np.zeros((1, 3, 5, 5), np.float32)},
        {"x": picture(0).astype(np.float64)},
        {"z": picture(0)},
        {},
    ],
    ids=["shape", "type", "name", "nothing"],
)
def test_an_input_that_does_not_fit(site: Site, feeds: dict[str, Any]) -> None:
    """The camera's program gets onnxruntime's own error."""
    reference = ort.InferenceSession(str(site.model), one_thread(), providers=["CPUExecutionProvider"])
    with pytest.raises(Exception) as wanted:  # noqa: PT011 - whatever onnxruntime raises
        reference.run(None, feeds)
    with pytest.raises(type(wanted.value)) as given:
        site.camera.session.run(None, feeds)
    assert str(given.value) == str(wanted.value)


def test_a_tensor_that_does_not_fit_the_slice(site: Site) -> None:
    plan = site.settled_plan()
    stage = plan.routes[0][-1]
    assert stage.slice is not None
    replies: list[bytes] = []
    reply_to = topics.REPLY.at(site.name, node="stranger", boot="b1")
    site.watch.bus.subscribe(reply_to, lambda delivery: replies.append(delivery.payload))
    wrong = pack_tensor(_first_input(site, stage.slice), np.zeros((1, 2, 3), np.float32), "raw")
    job = Job(FrameId("stranger", "b1", 1), site.model_hash, "p1", 1, 0, 1_000_000, reply_to,
              (Hop(stage.node, stage.slice),), (wrong,))  # fmt: skip
    topic = topics.JOB.at(site.name, node=stage.node, device="stranger")
    alert = complaint(site, stage.node, "refused_input", publish(site, topic, encode(job)))
    assert "takes" in alert.reason
    refusal = _packet(wait_for("the refusal", lambda: replies))
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.detail) == ("input", alert.reason)
    unknown = replace(job, route=(Hop(stage.node, sha256(b"no such slice")),))
    publish(site, topic, encode(unknown))()
    wait_for("another refusal", lambda: len(replies) > 1)
    site.watch.bus.unsubscribe(reply_to)


def _first_input(site: Site, slice_id: str) -> str:
    return m.SliceManifest.from_json(BlobStore(site.state_dir / "blobs").read(slice_id)).inputs[0].name


def _packet(payloads: list[bytes]) -> object:
    arrival = Assembler().feed(payloads[0], 0.0)
    assert arrival is not None
    return decode(arrival.data)


# A plan for an unknown model


def test_a_plan_for_another_model(site: Site) -> None:
    plan = site.settled_plan()
    other = sha256(b"another model")
    stray = plan.model_copy(update={"model": other, "epoch": plan.epoch + 1000, "plan": "stray"})
    mark = site.watch.mark
    topic = topics.PLAN.at(site.name, node=CAMERA, model=site.key)
    publish(site, topic, stray.to_json())()
    states = topics.PLAN_STATE.at(site.name, node=CAMERA, model=site.key)

    def told() -> list[m.PlanState]:
        return [state for state in site.watch.all(m.PlanState, states, mark) if state.plan == "stray"]

    first = wait_for("the camera speaks of it", told)[0]
    assert (first.state, "is for model" in (first.reason or "")) == ("ignored", True)


def test_a_retained_plan_for_a_model_that_nobody_registered(site: Site) -> None:
    plan = site.settled_plan()
    other = sha256(b"another model")
    topic = topics.PLAN.at(site.name, node=CAMERA, model=model_key(other))
    removed: list[bytes] = []
    publish(site, topic, plan.model_copy(update={"model": other}).to_json(), retain=True)()
    site.watch.bus.subscribe(topic, lambda delivery: removed.append(delivery.payload))
    wait_for("the gateway removes it", lambda: b"" in removed, 10)
    site.watch.bus.unsubscribe(topic)


def test_a_model_that_is_not_registered(site: Site) -> None:
    refused("plan", "pin", CAMERA, "dog", "--local", *site.options, names="'dog'", remedy=f"known are {MODEL}")
    refused("model", "remove", "dog", "--config", site.config, names="'dog'", remedy="splitbus model add")
    refused("plan", "explain", "camera7", *site.options, names="camera7", remedy=f"{CAMERA} {MODEL}")


def test_a_model_that_is_removed_while_it_runs(site: Site) -> None:
    mark = site.watch.mark
    assert splitbus("model", "remove", MODEL, "--config", site.config).returncode == 0
    site.camera.wait("the camera answers alone", lambda: _local_lately(site), 10)
    topic = topics.PLAN_STATE.at(site.name, node=CAMERA, model=site.key)
    alerts = wait_for("the gateway tells", lambda: site.watch.alerts("gateway", "unknown_models", mark))
    assert (alerts[0].topic, "splitbus model add" in alerts[0].reason) == (topic, True)
    site.register()


def _local_lately(site: Site) -> bool:
    newest = [answer for _, answer in site.camera.answers(max(0, site.camera.asked - 4))]
    return bool(newest) and all(answer.is_local and answer.plan == "local" for answer in newest)


# A pin that cannot be


def test_a_pin_that_no_command_takes(site: Site) -> None:
    for wish, problem in (
        (["--cut=3"], "no useful cut 3"),
        (["--cut=2", "--codec=jpeg"], "codec 'jpeg' is not known"),
        (["--cut=6", "--cut=2"], "not in the order of the model"),
        ([], "either --local or where to cut"),
    ):
        refused("plan", "pin", CAMERA, MODEL, *wish, *site.options, names=problem)


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        (m.Pin(cuts=[m.PlanCut(index=2, codec="zstd")], nodes=["nobody"], by="anna"), "nobody"),
        (m.Pin(cuts=[m.PlanCut(index=999, codec="zstd")], nodes=[EDGE], by="anna"), "999"),
        (m.Pin(cuts=[m.PlanCut(index=2, codec="jpeg")], nodes=[EDGE], by="anna"), "jpeg"),
    ],
    ids=["worker", "cut", "codec"],
)
def test_a_pin_that_cannot_be_followed(site: Site, wish: m.Pin, problem: str) -> None:
    topic = topics.PIN.at(site.name, node=CAMERA, model=site.key)
    alert = complaint(site, "gateway", "pins_failed", publish(site, topic, wish.to_json(), retain=True))
    assert problem in alert.reason
    assert CAMERA in alert.reason
    site.settle()
    publish(site, topic, b"", retain=True)()


# Settings


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("[planner]\nmin_gian = 0.1\n")
    for check in ([], ["--check-config"]):
        refused(
            "gateway", "--config", config, *check, names=f"{config}: planner.min_gian", remedy="did you mean min_gain?"
        )
    refused("worker", "--broker=localhost", names="broker.url", remedy="write mqtt://host")
    refused("top", "--once", names="http", SPLITBUS_BROKER="http://x")
