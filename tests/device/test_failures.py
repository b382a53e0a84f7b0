"""What fails on the way of a frame, and what its caller gets: one right answer, in time."""

from __future__ import annotations

import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.brokers import BrokerFactory
from tests.device.rig import CAMERA, FalseWorker, Site, made_up, plain, same, wait_for

from splitbus_device import Answer, InferenceSession
from splitbus_schemas.packet import encode, pack_tensor
from splitbus_schemas.packet_types import Job, Packet, Refusal, Result, Spent

pytestmark = pytest.mark.broker

DEADLINE = 0.6
CLOSE = 1e-5
WHILE_THE_WORKER_IS_NOT_BACK = (
    "deadline",
    "too many frames are out",
    "edge1 is gone",
    "a worker on every route is gone",
    "edge1 came back only now",
)
"""A camera may find a restarted broker before its worker does."""


def run(session: InferenceSession, chain: Path, seed: int = 0, tolerance: float = 0.0) -> Answer:
    """Ask for one frame and check its numbers; how it was answered."""
    feeds = made_up(session, seed)
    same(session.run(None, feeds), plain(chain).run(None, feeds), tolerance)
    assert session.last_answer is not None
    return session.last_answer


def result(job: Job, array: Any, **changes: Any) -> Result:
    made = Result(
        job.frame,
        job.plan,
        job.epoch,
        job.attempt,
        (pack_tensor("y", np.asarray(array), "raw", final=True),),
        (*job.spent, Spent("edge1", run_us=10)),
    )
    return replace(made, **changes)


def refusal(job: Job, reason: str = "busy") -> Refusal:
    return Refusal(job.frame, job.plan, job.epoch, job.attempt, job.route[0].node, reason, "the test says so")


def local_after(
    site: Site, chain: Path, answer: Callable[[Job], Sequence[Packet | bytes]], deadline: float = DEADLINE
) -> tuple[Answer, list[Job]]:
    """One frame to a worker that answers so; it must be answered locally."""
    plan = site.plan(site.register(chain), [("edge1", 2)])
    with FalseWorker(site, "edge1", answer) as worker, site.session(chain, deadline=deadline) as session:
        site.follow(session, plan)
        got = run(session, chain)
        assert got.is_local
        assert got.plan == plan.plan, "the plan is in force all the same"
        return got, worker.jobs


def test_a_worker_that_never_answers(site: Site, chain: Path) -> None:
    answer, jobs = local_after(site, chain, lambda _: ())
    assert (answer.reason, answer.late, answer.attempts) == ("deadline", False, 1)
    assert DEADLINE * 500 < answer.total_ms < DEADLINE * 1000
    assert answer.frame == str(jobs[0].frame)
    assert 0 < jobs[0].budget_us <= DEADLINE * 1e6


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (lambda job: [result(job, np.zeros((1, 5), np.float32))], "as float32[1, 5], the model gives float32[1, 10]"),
        (lambda job: [result(job, np.zeros((10,), np.float32))], "as float32[10]"),
        (lambda job: [result(job, np.zeros((1, 10), np.float64))], "as float64[1, 10]"),
        (lambda job: [result(job, 0, tensors=())], "lacks output 'y'"),
        (lambda job: [result(job, np.zeros((1, 10), np.float32), spent=())], "was answered by nobody"),
        (
            lambda job: [result(job, np.zeros((1, 10), np.float32), spent=(Spent("a"), Spent("b", run_us=2**62)))],
            "ValidationError",
        ),
        (lambda job: [refusal(job)], "edge1 refused it (busy): the test says so"),
    ],
    ids=["size", "rank", "dtype", "nothing", "nobody", "times", "refusal"],
)
def test_an_answer_that_cannot_be_right_is_not_waited_for_again(
    site: Site, chain: Path, what: Callable[[Job], Sequence[Packet]], why: str
) -> None:
    answer, _ = local_after(site, chain, what, deadline=5.0)
    assert why in answer.reason
    assert answer.total_ms < 2000


def damaged(job: Job) -> list[bytes]:
    data = bytearray(encode(result(job, np.zeros((1, 10), np.float32))))
    data[-1] ^= 1
    return [bytes(data), b"", b"SBus", bytes(data[:40])]


def test_a_damaged_answer_is_told_and_not_believed(site: Site, chain: Path) -> None:
    answer, _ = local_after(site, chain, damaged)
    assert answer.reason == "deadline"
    wait_for("it is told", lambda: any("damaged on the way" in reason for reason in site.alerts()))


def test_answers_for_others_and_answers_twice_are_counted_and_not_delivered(site: Site, chain: Path) -> None:
    right = np.zeros((1, 10), np.float32)
    strangers: list[Packet] = []

    def answers(job: Job) -> list[Packet]:
        good = result(job, right)
        strangers[:] = [
            replace(good, frame=replace(job.frame, boot="other")),
            replace(good, frame=replace(job.frame, seq=10_000)),
            replace(good, attempt=7),
            refusal(replace(job, frame=replace(job.frame, seq=10_000))),
        ]
        return [*strangers, good, good, good, refusal(job)]

    plan = site.plan(site.register(chain), [("edge1", 2)])
    with FalseWorker(site, "edge1", answers), site.session(chain) as session:
        site.follow(session, plan)
        for _ in range(3):
            (scores,) = session.run(None, made_up(session))
            assert not scores.any()
            assert session.last_answer is not None
            assert not session.last_answer.is_local
        expected = 3 * (len(strangers) + 3)
        wait_for("they are counted", lambda: site.counters().get("unwanted_answers", 0) == expected)


def test_a_late_answer_is_not_delivered_to_a_later_frame(site: Site, chain: Path) -> None:
    """The answer to the first frame comes while the second one waits for its own."""
    jobs: list[Job] = []

    def answers(job: Job) -> list[Packet]:
        jobs.append(job)
        return [] if len(jobs) == 1 else [result(jobs[0], np.full((1, 10), 9, np.float32)), refusal(job)]

    plan = site.plan(site.register(chain), [("edge1", 2)])
    with FalseWorker(site, "edge1", answers), site.session(chain, deadline=DEADLINE) as session:
        site.follow(session, plan)
        assert run(session, chain).reason == "deadline"
        assert "refused" in run(session, chain, 1).reason
        wait_for("it is counted", lambda: site.counters().get("unwanted_answers", 0) == 1)


def test_an_alternate_takes_over_from_a_worker_that_refuses(site: Site, chain: Path) -> None:
    plan = site.plan(site.register(chain), [("edge1", 2)], [("edge2", 2)])
    with (
        FalseWorker(site, "edge1", lambda job: [refusal(job)]),
        site.worker("edge2", *site.stage_slices(plan, "edge2")),
        site.session(chain) as session,
    ):
        site.follow(session, plan)
        answer = run(session, chain, tolerance=CLOSE)
    assert (answer.route, answer.attempts, answer.reason) == ((CAMERA, "edge2"), 2, "")


def test_an_alternate_takes_over_from_a_silent_worker_before_the_deadline(site: Site, chain: Path) -> None:
    plan = site.plan(site.register(chain), [("edge1", 2)], [("edge2", 2)], predicted_ms=30.0)
    with (
        FalseWorker(site, "edge1") as silent,
        site.worker("edge2", *site.stage_slices(plan, "edge2")),
        site.session(chain, deadline=2.0) as session,
    ):
        site.follow(session, plan)
        answer = run(session, chain, tolerance=CLOSE)
        assert (answer.route, answer.attempts) == ((CAMERA, "edge2"), 2)
        assert answer.total_ms < 1000
        silent.send(silent.jobs[0], result(silent.jobs[0], np.zeros((1, 10), np.float32)))
        wait_for("the late answer is counted", lambda: site.counters().get("unwanted_answers", 0) == 1)


@pytest.mark.parametrize("state", ["lost", "stopping"])
@pytest.mark.parametrize("alternate", [True, False])
def test_a_worker_that_goes_in_the_middle_of_a_frame(site: Site, chain: Path, state: str, alternate: bool) -> None:
    routes = [[("edge1", 2)], [("edge2", 2)]] if alternate else [[("edge1", 2)]]
    plan = site.plan(site.register(chain), *routes, predicted_ms=2000.0)

    def leave(job: Job) -> list[Packet]:
        if job.frame.seq > 1:
            return [refusal(job)]
        site.say_status("edge1", state)
        return []

    slices = site.stage_slices(plan, "edge2")
    with FalseWorker(site, "edge1", leave) as leaver, site.worker("edge2", *slices), site.session(chain) as session:
        site.follow(session, plan)
        answer = run(session, chain, tolerance=CLOSE)
        assert answer.total_ms < 1500
        if alternate:
            assert (answer.route, answer.attempts) == ((CAMERA, "edge2"), 2)
        else:
            assert (answer.is_local, answer.reason) == (True, "edge1 is gone")
        again = run(session, chain, 1, tolerance=CLOSE)
        assert again.attempts == int(alternate), "nobody sends to a worker that is gone"
        assert len(leaver.jobs) == 1
        site.say_status("edge1", "ready", boot="b2")
        site.say_status("edge1", "lost", boot="b1")  # a will that comes late
        wait_for("it is asked again", lambda: run(session, chain, 2, CLOSE) and len(leaver.jobs) == 2)


def test_a_killed_worker_process(site: Site, chain: Path) -> None:
    """The broker publishes its will; frames go on by the alternate, and never wait for their deadline."""
    plan = site.plan(site.register(chain), [("edge1", 2)], [("edge2", 2)])
    process = start_worker(site, "edge1")
    try:
        with (
            site.worker("edge2", *site.stage_slices(plan, "edge2")),
            site.session(chain, deadline=2.0) as session,
        ):
            site.follow(session, plan)
            wait_for("edge1 answers", lambda: run(session, chain, 0, CLOSE).route == (CAMERA, "edge1"))
            process.kill()
            answers = [run(session, chain, seed, CLOSE) for seed in range(20)]
    finally:
        process.kill()
        process.wait(10)
    assert {answer.route for answer in answers[1:]} == {(CAMERA, "edge2")}
    assert not any(answer.late for answer in answers)
    assert {answer.attempts for answer in answers[-5:]} == {1}


def test_a_frozen_worker_process(site: Site, chain: Path) -> None:
    """SIGSTOP: its connection stays, nothing is answered. Later it goes on, and so do the frames."""
    plan = site.plan(site.register(chain), [("edge1", 2)])
    process = start_worker(site, "edge1")
    try:
        with site.session(chain, deadline=DEADLINE) as session:
            site.follow(session, plan)
            wait_for("edge1 answers", lambda: run(session, chain, 0, CLOSE).route == (CAMERA, "edge1"))
            process.send_signal(signal.SIGSTOP)
            wait_for("all its threads stand", lambda: is_frozen(process.pid))
            frozen = [run(session, chain, seed, CLOSE) for seed in range(8)]
            process.send_signal(signal.SIGCONT)
            wait_for("edge1 answers again", lambda: not run(session, chain, 0, CLOSE).is_local)
    finally:
        process.kill()
        process.wait(10)
    assert {answer.route for answer in frozen} == {(CAMERA,)}
    assert not any(answer.late for answer in frozen)
    reasons = [answer.reason for answer in frozen]
    assert reasons == sorted(reasons), "after a window of frames that waited, nobody waits any more"
    assert set(reasons) == {"deadline", "too many frames are out"}
    assert reasons.count("deadline") <= 4


def is_frozen(pid: int) -> bool:
    stats = [task.joinpath("stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return {stat.rpartition(")")[2].split()[0] for stat in stats} == {"T"}


def start_worker(site: Site, node: str) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from splitbus_worker.service import run; from splitbus_worker.settings import WorkerConfig; "
        "sys.exit(run(WorkerConfig.model_validate_json(sys.argv[1])))"
    )
    config = site.worker_config(node).model_dump_json()
    return subprocess.Popen([sys.executable, "-c", code, config], stderr=subprocess.DEVNULL)


def test_a_broker_that_goes_and_comes_back(broker_factory: BrokerFactory, chain: Path, tmp_path: Path) -> None:
    answers: list[Answer] = []
    with broker_factory() as broker:
        site = Site(broker, tmp_path)
        try:
            plan = site.plan(site.register(chain), [("edge1", 2)])
            with site.worker("edge1", *site.stage_slices(plan)), site.session(chain, deadline=2.0) as session:
                site.follow(session, plan)
                assert not run(session, chain, tolerance=CLOSE).is_local
                stop = threading.Event()
                asking = threading.Thread(target=lambda: ask_until(stop, session, chain, answers))
                asking.start()
                broker.kill()
                wait_for("frames are local", lambda: answers and answers[-1].is_local)
                broker.start()
                wait_for("frames go over the bus again", lambda: not answers[-1].is_local)
                stop.set()
                asking.join(10)
        finally:
            site.close()
    assert not any(answer.late for answer in answers), "a frame that was out when the broker died is answered at once"
    reasons = {answer.reason for answer in answers if answer.is_local}
    assert reasons <= {"", "the broker is gone", "the broker does not take it", *WHILE_THE_WORKER_IS_NOT_BACK}


def ask_until(stop: threading.Event, session: InferenceSession, chain: Path, answers: list[Answer]) -> None:
    while not stop.is_set():
        answers.append(run(session, chain, len(answers) % 4, CLOSE))
        time.sleep(0.002)


def test_a_frame_that_is_out_when_the_session_closes_is_answered_locally(site: Site, chain: Path) -> None:
    plan = site.plan(site.register(chain), [("edge1", 2)])
    answers: list[Answer] = []
    with FalseWorker(site, "edge1") as worker:
        session = site.session(chain, deadline=30.0)
        site.follow(session, plan)
        asking = threading.Thread(target=lambda: answers.append(run(session, chain)))
        asking.start()
        wait_for("the frame is out", lambda: worker.jobs)
        session.close()
        asking.join(5)
    assert [(answer.is_local, answer.reason) for answer in answers] == [(True, "the broker is gone")]


def test_run_async_under_way_is_answered_before_close_returns(site: Site, chain: Path) -> None:
    plan = site.plan(site.register(chain), [("edge1", 2)])
    told: list[tuple[int, str]] = []
    with site.worker("edge1", *site.stage_slices(plan)):
        session = site.session(chain)
        site.follow(session, plan)
        for number in range(4):
            session.run_async(None, made_up(session), lambda _, number, error: told.append((number, error)), number)
        session.close()
    assert sorted(told) == [(number, "") for number in range(4)]


def test_a_deadline_shorter_than_a_local_run_leaves_the_bus_all_the_time(site: Site, chain: Path) -> None:
    """The local model cannot be in time: the bus has until the deadline, and a local answer behind it is late."""
    plan = site.plan(site.register(chain), [("edge1", 2)])
    silent = True

    def answers(job: Job) -> list[Packet]:
        time.sleep(0.15)
        return [] if silent else [result(job, np.zeros((1, 10), np.float32))]

    with FalseWorker(site, "edge1", answers), site.session(chain, deadline=0.2) as session:
        site.follow(session, plan)
        session._answers.local.expected_s = 3.0  # as if it had been timed on a slower machine
        answer = run(session, chain)
        assert (answer.is_local, answer.late, answer.reason) == (True, True, "deadline")
        silent = False
        session._answers.local.expected_s = 3.0
        session.run(None, made_up(session))
        assert session.last_answer is not None
        assert (session.last_answer.is_local, session.last_answer.late) == (False, False)


def test_a_connection_that_breaks_for_a_moment_is_no_death(site: Site, chain: Path) -> None:
    plan = site.plan(site.register(chain), [("edge1", 2)])
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as session:
        site.follow(session, plan)
        assert session._uplink is not None
        for bus in (session._uplink._data, session._uplink._control):
            client = bus._client
            assert client is not None
            sock = client.socket()
            assert isinstance(sock, socket.socket)
            sock.shutdown(socket.SHUT_RDWR)
        wait_for("the bus answers again", lambda: not run(session, chain, 0, CLOSE).is_local)
        time.sleep(0.5)
        states = [d.payload for d in site.heard if d.topic.endswith(f"/{CAMERA}/status")]
    assert not any(b'"lost"' in state for state in states)


def test_a_deadline_counts_from_the_moment_a_frame_is_handed_over(site: Site, chain: Path) -> None:
    """The second frame waits for the first one's turn to end, and both are answered in time."""
    plan = site.plan(site.register(chain), [("edge1", 2)])
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    with FalseWorker(site, "edge1"), site.session(chain, deadline=1.0, window=1) as session:
        site.follow(session, plan)
        feeds = made_up(session)
        for pause in (0.2, 0.0):
            session.submit(feeds, answers.put, live=False)
            time.sleep(pause)
        first, second = answers.get(timeout=5), answers.get(timeout=5)
    assert (first.late, second.late) == (False, False)
    assert first.total_ms > 900
    assert second.total_ms == pytest.approx(first.total_ms - 200, abs=50)
    assert second.reason == "too many frames are out"


def test_time_spent_waiting_for_a_turn_is_told(site: Site, chain: Path) -> None:
    def slowly(job: Job) -> list[Packet]:
        time.sleep(0.1)
        return [result(job, np.zeros((1, 10), np.float32))]

    plan = site.plan(site.register(chain), [("edge1", 2)])
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    with FalseWorker(site, "edge1", slowly), site.session(chain, window=1) as session:
        site.follow(session, plan)
        for _ in range(2):
            session.submit(made_up(session), answers.put, live=False)
        waits = [
            sum(step.ms for step in answers.get(timeout=5).steps if step.what == "queue" and step.where == CAMERA)
            for _ in range(2)
        ]
    assert waits[0] < 50
    assert 80 < waits[1] < 1000
