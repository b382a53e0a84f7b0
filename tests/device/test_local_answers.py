"""Without a bus, or without use of it: plain onnxruntime to the last bit, its errors included."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import models
from tests.brokers import BrokerFactory
from tests.device.rig import CAMERA, Site, made_up, plain, same, threads, wait_for

from splitbus_device import Answer, InferenceSession
from splitbus_schemas.errors import BlobError, BusError, ConfigError, ModelError

NOWHERE = "mqtt://127.0.0.1:1"
"""Nobody listens there."""


def outcome_of(call: Callable[[], Any]) -> Any:
    """What it gives, or the type and text of what it raises."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        return type(error), str(error)


@pytest.mark.parametrize("name", models.CORPUS)
def test_without_a_broker_it_is_onnxruntime(tmp_path: Path, name: str) -> None:
    path = models.save(models.CORPUS[name](), tmp_path)
    reference = plain(path)
    feeds = {"ids": np.ones((1, 4), np.int64)} if name == "transformer" else made_up(reference)
    with InferenceSession(path) as session:
        same(session.run(None, feeds), reference.run(None, feeds))
        assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
            (i.name, i.type, i.shape) for i in reference.get_inputs()
        ]
        assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
            (o.name, o.type, o.shape) for o in reference.get_outputs()
        ]
        answer = session.last_answer
    assert answer is not None
    assert (answer.route, answer.plan, answer.is_local, answer.attempts) == (("local",), "local", True, 0)


def test_bytes_external_weights_and_strings(tmp_path: Path) -> None:
    path = models.external(tmp_path)
    data = models.chain().SerializeToString()
    for ours, theirs in ((path, path), (str(path), path), (data, data)):
        feeds = made_up(plain(theirs))
        with InferenceSession(ours) as session:
            same(session.run(["y"], feeds), plain(theirs).run(["y"], feeds))


def test_metadata_and_providers_are_onnxruntimes(chain: Path) -> None:
    with InferenceSession(
        chain, None, ["CPUExecutionProvider"], [{"arena_extend_strategy": "kSameAsRequested"}]
    ) as session:
        assert session.get_providers() == ["CPUExecutionProvider"]
        assert session.get_modelmeta().graph_name == plain(chain).get_modelmeta().graph_name


WRONG_CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "no input": lambda s, _: s.run(None, {}),
    "a dtype": lambda s, x: s.run(None, {"x": x.astype(np.float64)}),
    "a shape": lambda s, x: s.run(None, {"x": x[:, :2]}),
    "a rank": lambda s, x: s.run(None, {"x": x[0]}),
    "an output's name": lambda s, x: s.run(["nope"], {"x": x}),
    "an input's name": lambda s, x: s.run(None, {"x": x, "k": x}),
    "a list": lambda s, x: s.run(None, [x]),
    "objects": lambda s, x: s.run(None, {"x": x.astype(object)}),
    "a string of names": lambda s, x: s.run("y", {"x": x}),
    "missing at run_async": lambda s, _: s.run_async(None, {}, print, None),
    "a list at run_async": lambda s, x: s.run_async(None, [x], print, None),
}


@pytest.mark.parametrize("what", WRONG_CALLS)
def test_wrong_calls_get_onnxruntimes_own_errors(chain: Path, what: str) -> None:
    reference = plain(chain)
    x = made_up(reference)["x"]
    call = WRONG_CALLS[what]
    expected = outcome_of(lambda: call(reference, x))
    assert isinstance(expected, tuple), "onnxruntime itself must refuse it"
    with InferenceSession(chain) as session:
        ours = outcome_of(lambda: call(session, x))
    if what == "a string of names":  # the text names the session object
        expected, ours = expected[0], ours[0]
    assert ours == expected


@pytest.mark.broker
@pytest.mark.parametrize("cut", [0, 2])
@pytest.mark.parametrize("what", WRONG_CALLS)
def test_wrong_calls_get_the_same_errors_under_a_plan(site: Site, chain: Path, what: str, cut: int) -> None:
    reference = plain(chain)
    x = made_up(reference)["x"]
    call = WRONG_CALLS[what]
    expected = outcome_of(lambda: call(reference, x))
    plan = site.plan(site.register(chain), [("edge1", cut)])
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as session:
        site.follow(session, plan)
        ours = outcome_of(lambda: call(session, x))
        session.run(None, {"x": x})
        assert session.last_answer is not None
        assert not session.last_answer.is_local, "the next frame goes over the bus"
    if what == "a string of names":
        expected, ours = expected[0], ours[0]
    assert ours == expected


@pytest.mark.broker
def test_feeds_that_are_no_arrays_are_onnxruntimes_business(site: Site, chain: Path) -> None:
    plan = site.plan(site.register(chain), [("edge1", 2)])
    with site.session(chain) as session:
        site.follow(session, plan)
        feeds = made_up(session)
        same(session.run(None, {"x": feeds["x"].tolist()}), plain(chain).run(None, feeds))
        assert session.last_answer is not None
        assert session.last_answer.is_local


def test_run_async_calls_back_as_onnxruntime_does(chain: Path) -> None:
    calls: dict[str, queue.SimpleQueue[tuple[Any, ...]]] = {"ours": queue.SimpleQueue(), "theirs": queue.SimpleQueue()}
    reference = plain(chain)
    good = made_up(reference)
    bad = {"x": good["x"][:, :2]}
    user_data = object()
    with InferenceSession(chain) as session:
        for feeds in (good, bad):
            session.run_async(None, feeds, lambda *args: calls["ours"].put(args), user_data)
            reference.run_async(None, feeds, lambda *args: calls["theirs"].put(args), user_data)
            ours, theirs = calls["ours"].get(timeout=5), calls["theirs"].get(timeout=5)
            same(ours[0], theirs[0])
            assert ours[1] is theirs[1] is user_data
            assert ours[2].endswith(theirs[2])
            assert bool(ours[2]) == bool(theirs[2]) == (feeds is bad)


def test_frames_that_are_pushed_out_are_told_and_counted(tmp_path: Path) -> None:
    path = models.save(models.chain(), tmp_path)
    told: queue.SimpleQueue[tuple[int, bool, str]] = queue.SimpleQueue()
    gate = threading.Event()
    answers: list[Answer] = []

    def back(outputs: list[Any], number: int, error: str) -> None:
        gate.wait(10)
        told.put((number, bool(outputs), error))

    def push(numbers: Iterable[int]) -> None:
        for number in numbers:
            session.run_async(None, feeds, back, number)

    with InferenceSession(path, window=1, on_answer=answers.append) as session:
        feeds = made_up(session)
        push([0])
        wait_for("the first is answered", lambda: len(answers) == 1)
        pushed = threading.Thread(  # a frame that is dropped is told on the thread that drops it
            target=lambda: push(range(1, 6))
        )
        pushed.start()
        time.sleep(0.1)
        gate.set()
        pushed.join(10)
    heard = sorted(told.get(timeout=5) for _ in range(6))
    assert [number for number, _, _ in heard] == list(range(6)), "each is told once"
    assert heard[0][1:] == (True, "")
    assert heard[5][1:] == (True, "")
    dropped = [error for _, answered, error in heard if not answered]
    assert dropped
    assert set(dropped) == {"a newer frame took its place"}
    assert sum(answer.outcome == "dropped" for answer in answers) == len(dropped)


def test_a_callback_that_fails_costs_nothing_but_a_log_line(chain: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("in the caller's own code")

    done = threading.Event()
    with InferenceSession(chain, window=1, on_answer=fail) as session:
        feeds = made_up(session)
        session.run(None, feeds)
        session.run_async(None, feeds, fail, None)
        session.submit(feeds, lambda _: done.set(), live=False)
        assert done.wait(5)
    assert "the callback for a frame failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_on_answer_hears_of_every_frame(chain: Path) -> None:
    answers: list[Answer] = []
    with InferenceSession(chain, on_answer=answers.append, deadline=30) as session:
        feeds = made_up(session)
        session.run(None, feeds)
        with pytest.raises(ValueError, match="missing"):
            session.run(None, {})
        list(session.stream([feeds["x"], feeds["x"][:, :2]], live=False))
    assert sorted(answer.outcome for answer in answers) == ["answered", "answered", "failed"]
    assert all(answer.steps[0].what == "run" for answer in answers if answer.outcome == "answered")


@pytest.mark.parametrize("live", [True, False])
def test_a_stream_is_answered_in_order(chain: Path, live: bool) -> None:
    with InferenceSession(chain) as session:
        frames = [made_up(session, seed)["x"] for seed in range(30)]
        reference = plain(chain)
        answers = list(session.stream(iter(frames), ["y"], live=live))
        order = [next(i for i, frame in enumerate(frames) if frame is answer.input) for answer in answers]
        assert order == sorted(order)
        for answer in answers:
            same(answer.outputs, reference.run(["y"], {"x": answer.input}))
    assert live or len(answers) == 30
    assert order[-1] == 29, "newest wins"


def test_closing_in_the_middle_of_a_stream_ends_it(chain: Path) -> None:
    session = InferenceSession(chain)
    frame = made_up(session)["x"]

    def camera() -> Any:
        while True:
            time.sleep(0.001)
            yield frame

    answers = session.stream(camera())
    next(answers)
    session.close()
    with pytest.raises(RuntimeError, match="the session is closed"):
        for _ in answers:
            pass


def test_close_twice_and_run_after_it(chain: Path) -> None:
    before = threads()
    session = InferenceSession(chain, broker=NOWHERE, store=chain.parent / "store")
    feeds = made_up(session)
    session.run_async(None, feeds, lambda *_: None, None)
    session.close()
    session.close()
    same(session.run(None, feeds), plain(chain).run(None, feeds))
    with pytest.raises(RuntimeError, match="closed"):
        session.run_async(None, feeds, lambda *_: None, None)
    assert threads() == before


def test_a_broker_out_of_reach_delays_nothing(chain: Path, tmp_path: Path) -> None:
    """10.255.255.1 swallows packets: a connect hangs there until it times out."""
    begun = time.monotonic()
    session = InferenceSession(chain, broker="mqtt://10.255.255.1", store=tmp_path / "store", deadline=0.5)
    feeds = made_up(session)
    outputs = session.run(None, feeds)
    took = time.monotonic() - begun
    same(outputs, plain(chain).run(None, feeds))
    session.close()
    assert took < 1.0


def test_bad_settings_are_named(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"deadline": 0}, {"deadline": float("nan")}, {"deadline": float("inf")}, {"window": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            InferenceSession(chain, **wrong)
    with pytest.raises(ConfigError, match="provider_options has 1 entries for 0 providers"):
        InferenceSession(chain, provider_options=[{}])
    with pytest.raises(ConfigError, match="device 'Front Door' cannot stand in a topic"):
        InferenceSession(chain, broker=NOWHERE, device="Front Door")
    with pytest.raises(ConfigError, match="no scheme"):
        InferenceSession(chain, broker="gateway")
    with pytest.raises(BlobError, match="cannot be written"):
        InferenceSession(chain, broker=NOWHERE, store=chain / "below-a-file")
    with pytest.raises(ModelError, match=r"nowhere/model\.onnx is not there"):
        InferenceSession("nowhere/model.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all")
    with pytest.raises(ModelError, match=r"broken\.onnx is not a model that onnxruntime can open"):
        InferenceSession(broken, broker=NOWHERE, store=tmp_path / "store")
    with pytest.raises(ConfigError, match="'person' is no file here; to fetch it as a registered model, give broker="):
        InferenceSession("person")
    monkeypatch.setenv("SPLITBUS_BROKER", "")
    InferenceSession(chain).close()


def test_a_name_without_a_broker_in_reach_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitbus_device.uplink.CARD_SECONDS", 0.5)
    with pytest.raises(BusError, match=r"broker at 127\.0\.0\.1:1: cannot connect"):
        InferenceSession("person", broker=NOWHERE, store=tmp_path)


@pytest.mark.broker
def test_an_unknown_name_says_what_to_do(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitbus_device.uplink.CARD_SECONDS", 1.0)
    with pytest.raises(ModelError, match="run splitbus model add person FILE"):
        site.session("person")


@pytest.mark.broker
def test_a_wrong_password_is_logged_and_frames_are_answered(
    broker_factory: BrokerFactory, chain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with broker_factory(users={CAMERA: "right"}) as broker:
        url = f"mqtt://{CAMERA}:wrong@{broker.host}:{broker.port}"
        with InferenceSession(chain, broker=url, device=CAMERA, store=tmp_path / "store") as session:
            wait_for("the refusal is logged", lambda: "refused: " in caplog.text)
            feeds = made_up(session)
            same(session.run(None, feeds), plain(chain).run(None, feeds))
    assert "check username, password and ACL" in caplog.text
    assert "wrong" not in caplog.text


@pytest.mark.broker
def test_a_model_that_nobody_registered_stays_local(site: Site, chain: Path, tmp_path: Path) -> None:
    card = site.register(models.save(models.residual(), tmp_path, "other.onnx"))
    with site.session(chain) as session:
        wait_for("it is on the bus", lambda: site.counters() is not None and any("caps" in d.topic for d in site.heard))
        feeds = made_up(session)
        same(session.run(None, feeds), plain(chain).run(None, feeds))
        assert session.plan == "local"
    assert site.plan_states(card) == []
