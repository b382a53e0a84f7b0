"""Durable frames as a camera's program sees them; the processes that are killed are in test_durable_kills.py."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import models
from tests.device.rig import CAMERA, Array, FalseWorker, Site, made_up, plain, same, wait_for

from splitbus_device import Answer, Durable, InferenceSession
from splitbus_schemas.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def frame(number: int) -> Array:
    return np.random.default_rng(number).standard_normal((1, 3, 16, 16)).astype(np.float32)


@contextlib.contextmanager
def power_cut(chain: Path, folder: Path, **options: Any) -> Iterator[InferenceSession]:
    """A life that tells the journal nothing more at its end: whatever was not applied is left."""
    session = InferenceSession(chain, durable=folder, **options)
    yield session
    session.close()


def kept(session: InferenceSession) -> int:
    assert session.journal is not None
    return session.journal.frames


def counters(session: InferenceSession) -> dict[str, int]:
    assert session.journal is not None
    return dict(session.journal.counters)


def test_run_is_durable_until_its_answer_was_applied(chain: Path, folder: Path) -> None:
    with power_cut(chain, folder) as session:
        for number in range(3):
            outputs = session.run(None, {"x": frame(number)}, key=f"f{number}")
            same(outputs, plain(chain).run(None, {"x": frame(number)}))
            assert session.last_answer is not None
            assert (session.last_answer.key, session.last_answer.repeated) == (f"f{number}", False)
        session.applied("f1")
        session.applied("f1")
        assert kept(session) == 2
        session.run(None, {"x": frame(9)})
        assert kept(session) == 2
    with InferenceSession(chain, durable=folder) as session:
        answers = list(session.resumed())
        assert [(a.key, a.repeated, a.outcome) for a in answers] == [("f0", True, "answered"), ("f2", True, "answered")]
        for answer, number in zip(answers, (0, 2), strict=True):
            same(answer.outputs, plain(chain).run(None, {"x": frame(number)}))
        assert kept(session) == 0
        assert list(session.resumed()) == []
        assert counters(session) == {}


def test_frames_that_were_never_answered_are_answered_with_their_input(chain: Path, folder: Path) -> None:
    with power_cut(chain, folder) as session:
        keeper = session._need_keeper()
        for number in range(20):
            keeper.accept(f"f{number}", {"x": frame(number)}, None)
        assert list(session.resumed()) == []  # they are this life's
    told: list[Answer] = []
    with InferenceSession(chain, durable=folder, window=2, on_answer=told.append) as session:
        for number, answer in enumerate(session.resumed()):
            assert (answer.key, answer.repeated, answer.late) == (f"f{number}", False, False)
            assert answer.input["x"].tobytes() == frame(number).tobytes()
            same(answer.outputs, plain(chain).run(None, {"x": frame(number)}))
            assert kept(session) == 20 - number
        assert kept(session) == 0
    assert len(told) == 20


def test_a_loop_that_breaks_applied_all_but_the_last(chain: Path, folder: Path) -> None:
    source = ((f"f{n}", frame(n)) for n in range(10))
    with power_cut(chain, folder) as session:
        for answer in session.stream(source, keyed=True):
            if answer.key == "f3":
                break
    with InferenceSession(chain, durable=folder) as session:
        again = [answer.key for answer in session.resumed()]
        assert again[0] == "f3"
        assert not {"f0", "f1", "f2"} & set(again)
        later = [answer.key for answer in session.stream(((f"f{n}", frame(n)) for n in range(10)), keyed=True)]
        assert sorted(again + later, key=lambda key: int(key[1:])) == [f"f{n}" for n in range(3, 10)]
        assert kept(session) == 0


def test_a_callback_that_fails_gets_its_answer_again(chain: Path, folder: Path) -> None:
    told: list[tuple[str, bool]] = []

    def fails_at_first(answer: Answer) -> None:
        told.append((answer.key, answer.repeated))
        if len(told) == 1:
            raise RuntimeError("the database is locked")

    with InferenceSession(chain, durable=folder) as session:
        session.submit(frame(1), fails_at_first, key="f1")
        wait_for("its answer", lambda: told == [("f1", False)])
        wait_for("it is kept", lambda: kept(session) == 1)
        session.submit(frame(1), fails_at_first, key="f1")
        wait_for("it is applied", lambda: kept(session) == 0)
    assert told == [("f1", False), ("f1", True)]


def test_what_was_applied_is_not_given_again(chain: Path, folder: Path) -> None:
    with InferenceSession(chain, durable=folder) as session:
        session.run(None, {"x": frame(1)}, key="f1")
        session.applied("f1")
    told: list[Any] = []
    with InferenceSession(chain, durable=folder) as session:
        session.submit(frame(1), told.append, key="f1")
        session.run_async(None, {"x": frame(1)}, lambda *args: told.append(args), "user", key="f1")
        assert (told[0].outcome, told[0].key, told[0].outputs) == ("known", "f1", [])
        assert told[1] == ([], "user", "its answer was applied already")
        same(session.run(None, {"x": frame(1)}, key="f1"), plain(chain).run(None, {"x": frame(1)}))
        assert session.last_answer is not None
        assert session.last_answer.repeated
        assert kept(session) == 0


def test_an_answer_for_other_outputs_is_made_anew(tmp_path: Path, folder: Path) -> None:
    path = models.save(models.inputs_outputs(), tmp_path, "two.onnx")
    feeds = made_up(plain(path))
    names = [info.name for info in plain(path).get_outputs()]
    assert len(names) > 1
    with power_cut(path, folder) as session:
        session.run(names[:1], feeds, key="f1")
    with power_cut(path, folder) as session:
        outputs = session.run(names[1:], feeds, key="f1")
        same(outputs, plain(path).run(names[1:], feeds))
    with InferenceSession(path, durable=folder) as session:
        (answer,) = session.resumed()
        same(answer.outputs, plain(path).run(names[1:], feeds))


def test_wrong_calls_say_what_to_do(chain: Path, folder: Path) -> None:
    with InferenceSession(chain) as session:
        assert session.journal is None
        with pytest.raises(ConfigError, match="open the session with durable=FOLDER"):
            session.run(None, {"x": frame(1)}, key="f1")
        with pytest.raises(ConfigError, match="open the session with durable=FOLDER"):
            session.resumed().__next__()
    with InferenceSession(chain, durable=folder) as session:
        with pytest.raises(ConfigError, match="a frame's key is a text that is not empty"):
            session.run(None, {"x": frame(1)}, key="")
        with pytest.raises(ConfigError, match="is in use by another session"):
            InferenceSession(chain, durable=folder)
        session._need_keeper().accept("f1", {"x": frame(1)}, None)
        with pytest.raises(ConfigError, match="'f1' is under way already"):
            session.run(None, {"x": frame(1)}, key="f1")
        with pytest.raises(Exception, match="Required inputs"):
            session.run(None, {}, key="f2")
        assert kept(session) == 1
        session._need_keeper().release("f1")
        with pytest.raises(Exception, match="Required inputs"):
            session.run(None, {}, key="f1")  # the frame that is kept is not to blame
        assert kept(session) == 1
    assert session.run(None, {"x": frame(1)}, key="f3")
    assert counters(session) == {"durable_unkept": 1}


def test_a_live_frame_does_not_push_out_a_durable_one(chain: Path, folder: Path) -> None:
    told: list[Answer] = []
    with InferenceSession(chain, durable=folder, window=1, slowdown=200.0) as session:
        for number in range(10):
            session.submit(frame(number), told.append, key=f"f{number}")
            for _ in range(3):
                session.submit(frame(number), told.append)
    assert sorted(a.key for a in told if a.key and a.outcome == "answered") == sorted(f"f{n}" for n in range(10))
    assert any(a.outcome == "dropped" for a in told)
    assert len(told) == 40


def test_on_a_full_disk_frames_are_answered_counted_and_reported(
    chain: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with InferenceSession(chain, durable=folder) as session:
        session.run(None, {"x": frame(0)}, key="f0")
        assert session.journal is not None
        with full_disk(session.journal.bytes + 100), caplog.at_level(logging.WARNING):
            for number in range(1, 4):
                outputs = session.run(None, {"x": frame(number)}, key=f"f{number}")
                same(outputs, plain(chain).run(None, {"x": frame(number)}))
            session.applied("f0")
        assert counters(session)["durable_unkept"] == 3
        assert caplog.text.count("cannot be written") == 1
        assert "frame 'f1' is answered, but not kept" in caplog.text
        session.run(None, {"x": frame(4)}, key="f4")
        assert kept(session) == 1


def test_a_mark_that_the_disk_refused_is_made_up_for(chain: Path, folder: Path) -> None:
    with InferenceSession(chain, durable=folder) as session:
        session.run(None, {"x": frame(0)}, key="f0")
        assert session.journal is not None
        with full_disk(session.journal.bytes):
            session.applied("f0")
            assert counters(session) == {"durable_unmarked": 1}
            assert kept(session) == 1
            told: list[Answer] = []
            session.submit(frame(0), told.append, key="f0")
            assert [a.outcome for a in told] == ["known"]
    with InferenceSession(chain, durable=folder) as session:
        assert list(session.resumed()) == []


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """The kernel lets no file grow beyond `size`: a write to the journal stops in its middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_gives_way_is_counted(chain: Path, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with InferenceSession(chain, durable=Durable(folder=folder, limit_mb=1)) as session:
        for number in range(400):
            session._need_keeper().accept(f"f{number}", {"x": frame(number)}, None)
        gone = counters(session)["durable_evicted"]
        assert 100 < gone == 400 - kept(session)
        assert caplog.text.count("is given up") == 1
        assert session.journal is not None
        assert session.journal.bytes <= 2**20
    with InferenceSession(chain, durable=folder) as session:
        assert [a.key for a in session.resumed()] == [f"f{n}" for n in range(gone, 400)]


def test_a_torn_journal_is_told(chain: Path, folder: Path) -> None:
    with power_cut(chain, folder) as session:
        for number in range(2):
            session._need_keeper().accept(f"f{number}", {"x": frame(number)}, None)
    path = folder / "00000001.journal"
    path.write_bytes(path.read_bytes()[:-10])
    with InferenceSession(chain, durable=folder) as session:
        assert counters(session) == {"durable_damaged": 1}
        assert [a.key for a in session.resumed()] == ["f0"]


@pytest.mark.broker
def test_trouble_is_published(site: Site, chain: Path, folder: Path) -> None:
    plan = site.plan(site.register(chain), [("edge1", 2)])
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain, durable=folder) as session:
        site.follow(session, plan)
        session.run(None, {"x": frame(0)}, key="f0")
        assert session.journal is not None
        with full_disk(session.journal.bytes + 100):
            session.run(None, {"x": frame(1)}, key="f1")
        assert session.last_answer is not None
        assert session.last_answer.route == (CAMERA, "edge1")
        wait_for("the counter", lambda: site.counters().get("durable_unkept") == 1)
        wait_for("the alert", lambda: any("'f1' is answered, but not kept" in reason for reason in site.alerts()))


@pytest.mark.broker
def test_a_frame_goes_on_under_the_plan_of_its_head(site: Site, chain: Path, folder: Path) -> None:
    """The plan changed between the lives: what the old head made is sent along the old plan's route."""
    card = site.register(chain)
    with FalseWorker(site, "edge1") as silent, power_cut(chain, folder, **_on(site)) as session:
        old = site.follow(session, site.plan(card, [("edge1", 2)]))
        session.run(None, {"x": frame(0)}, key="f0")  # answered locally in the end
        assert len(silent.jobs) == 1
        ticket = session._need_keeper().accept("f1", {"x": frame(1)}, None)
        request_head(session, ticket)
    new = site.publish(site.plan(card, [("edge1", 3)]))
    workers = site.stage_slices(old) + site.stage_slices(new)
    with site.worker("edge1", *workers), InferenceSession(chain, durable=folder, **_on(site)) as session:
        wait_for("the new plan", lambda: session.plan == new.plan)
        answers = list(session.resumed())
        assert [(a.key, a.plan, a.repeated) for a in answers] == [("f0", old.plan, True), ("f1", old.plan, False)]
        assert answers[1].route == (CAMERA, "edge1")
        assert [step.where for step in answers[1].steps if step.what == "run"] == ["edge1"]
        same(answers[1].outputs, plain(chain).run(None, {"x": frame(1)}), 1e-4)


def _on(site: Site) -> dict[str, Any]:
    return {
        "broker": site.broker.url, "site": site.name, "device": CAMERA, "store": site.folder / "camera",
        "deadline": 1.0,
    }  # fmt: skip


def request_head(session: InferenceSession, ticket: Any) -> None:
    """Run the frame's head and keep what it made, and no more: as if the process ended there."""
    assert session._uplink is not None
    active, courier = session._uplink.active, session._uplink._courier
    assert active is not None
    assert courier is not None
    made = courier._run_head(active, {"x": frame(1)}, 0.0)
    ticket.keep_head(active.plan_json, made.sent, made.kept)


@pytest.mark.broker
def test_what_the_head_made_is_enough(site: Site, chain: Path, folder: Path) -> None:
    """The inputs' record is damaged; what the head made goes on."""
    plan = site.plan(site.register(chain), [("edge1", 2)])
    with site.worker("edge1", *site.stage_slices(plan)):
        with power_cut(chain, folder, **_on(site)) as session:
            site.follow(session, plan)
            ticket = session._need_keeper().accept("f1", {"x": frame(1)}, None)
            request_head(session, ticket)
        path = folder / "00000001.journal"
        data = bytearray(path.read_bytes())
        data[200] ^= 1
        path.write_bytes(data)
        with InferenceSession(chain, durable=folder, **_on(site)) as session:
            (answer,) = session.resumed()
            assert (answer.key, answer.route, answer.input) == ("f1", (CAMERA, "edge1"), None)
            same(answer.outputs, plain(chain).run(None, {"x": frame(1)}), 1e-4)
            assert counters(session) == {"durable_damaged": 1}


def test_what_cannot_be_read_any_more_is_left_out_and_counted(chain: Path, folder: Path) -> None:
    with InferenceSession(chain, durable=folder) as session:
        session._need_keeper().accept("f1", {"x": frame(1)}, None)
    with InferenceSession(chain, durable=folder) as session:
        path = folder / "00000001.journal"
        data = bytearray(path.read_bytes())
        data[200] ^= 1
        path.write_bytes(data)
        assert list(session.resumed()) == []
        assert counters(session)["durable_damaged"] > 0
        assert kept(session) == 0
