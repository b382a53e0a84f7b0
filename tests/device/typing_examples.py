"""What type checkers are told of the public interface; mypy checks each line of it, and the test below that it did."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, assert_type

import numpy as np

from splitbus_device import Answer, Durable, InferenceSession, JournalState
from splitbus_runtime.settings import BrokerSettings
from splitbus_schemas.messages import Step


def as_in_onnxruntime(path: str | bytes | os.PathLike[str]) -> None:
    session = InferenceSession(path)
    assert_type(session.run(None, {"x": np.zeros(3)}), list[Any])
    assert_type(session.run(["y"], {"x": np.zeros(3)}, None), list[Any])
    assert_type(session.get_inputs(), list[Any])
    assert_type(session.get_outputs(), list[Any])
    assert_type(session.get_providers(), list[str])

    def done(outputs: list[Any], user_data: Any, error: str) -> None: ...

    session.run_async(["y"], {"x": np.zeros(3)}, done, None)
    with InferenceSession(path, None, ["CPUExecutionProvider"]) as opened:
        assert_type(opened, InferenceSession)


def with_a_bus(frames: Iterator[np.ndarray[Any, Any]]) -> None:
    def hear(answer: Answer) -> None: ...

    broker = BrokerSettings.of("mqtts://gateway")
    session = InferenceSession("person", broker=broker, deadline=0.2, device="cam", site="home", window=2,
                               store="folder", slowdown=1.0, on_answer=hear)  # fmt: skip
    assert_type(session.last_answer, Answer | None)
    assert_type(session.plan, str)
    assert_type(session.stream(frames, ["y"], live=False), Iterator[Answer])
    session.submit(next(frames), hear, output_names=["y"], live=False)
    session.close()


def durable_frames(frames: Iterator[tuple[str, np.ndarray[Any, Any]]]) -> None:
    session = InferenceSession("m.onnx", durable=Durable(folder=Path("journal"), fsync="always", limit_mb=64))
    assert_type(session.run(None, {"x": np.zeros(3)}, key="7"), list[Any])
    session.applied("7")
    assert_type(session.resumed(), Iterator[Answer])
    assert_type(session.stream(frames, keyed=True), Iterator[Answer])
    assert_type(session.journal, JournalState | None)


def an_answer(answer: Answer) -> None:
    assert_type(answer.outputs, list[Any])
    assert_type(answer.route, tuple[str, ...])
    assert_type(answer.steps, tuple[Step, ...])
    assert_type(answer.total_ms, float)
    assert_type(answer.is_local, bool)
    assert_type(answer.outcome, Literal["answered", "dropped", "failed", "known"])
    assert_type(answer.cut_bytes, tuple[int, ...])
    names: Sequence[str] = answer.codecs
    assert names is not None
