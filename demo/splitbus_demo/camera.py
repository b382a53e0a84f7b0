"""The demo's camera: a program that an integrator might have written, but for the log of answers that it keeps.

`python -m splitbus_demo.camera OPTIONS` writes one JSON line per answer to --log, and each answer's outputs, as
float32 in frame order of arrival, to --outputs.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnxruntime  # noqa: TID251 - the integrator's own session options

from splitbus_demo.inputs import InputSource
from splitbus_device import Answer, InferenceSession


class AnswerLog:
    """Writes answers down as they come, in whichever thread."""

    def __init__(self, log: IO[str], outputs: IO[bytes]) -> None:
        self._log = log
        self._outputs = outputs
        self._lock = threading.Lock()

    def write(self, index: int, asked: float, answer: Answer) -> None:
        """One line, and the tensors behind it."""
        flat = [np.asarray(output, np.float32).ravel() for output in answer.outputs]
        record = {
            "index": index,
            "asked": asked,
            "at": time.monotonic(),
            "outcome": answer.outcome,
            "total_ms": answer.total_ms,
            "route": answer.route,
            "plan": answer.plan,
            "epoch": answer.epoch,
            "attempts": answer.attempts,
            "again": answer.again,
            "late": answer.late,
            "reason": answer.reason,
            "cuts": answer.cuts,
            "codecs": answer.codecs,
            "cut_bytes": answer.cut_bytes,
            "steps": [step.model_dump(exclude_none=True) for step in answer.steps],
            "values": [len(values) for values in flat],
        }
        with self._lock:
            for values in flat:
                self._outputs.write(values.tobytes())
            self._log.write(json.dumps(record) + "\n")
            self._log.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    stop = threading.Event()
    # From a thread of its own: the handler may run in the middle of `stop.wait`, which holds the event's lock.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set, name="stop").start())
    with (
        options.log.open("w") as log,
        options.outputs.open("wb") as outputs,
        InferenceSession(
            options.model,
            _one_thread(),
            broker=options.broker,
            site=options.site,
            device=options.device,
            deadline=options.deadline,
            store=options.store,
            slowdown=options.slowdown,
        ) as session,
    ):
        answers = AnswerLog(log, outputs)
        sources = {info.name: InputSource(info.shape, _dtype(info.type)) for info in session.get_inputs()}
        begun = time.monotonic()
        index = 0
        while not stop.wait(max(0.0, begun + index / options.fps - time.monotonic())):
            feeds = {name: source.array(index) for name, source in sources.items()}
            _ask(session, feeds, index, answers)
            index += 1
        session.close()  # answers what is under way
    return 0


def _ask(session: InferenceSession, feeds: dict[str, Any], index: int, answers: AnswerLog) -> None:
    asked = time.monotonic()
    session.submit(feeds, lambda answer: answers.write(index, asked, answer))


def _one_thread() -> Any:
    """A camera has one slow core; with one thread its emulated speed is exact."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    return settings


def _dtype(onnx_type: str) -> str:
    """The numpy name for onnxruntime's: tensor(float) is float32."""
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--site", required=True)
    parser.add_argument("--device", default="camera1")
    parser.add_argument("--deadline", type=float, required=True, help="seconds")
    parser.add_argument("--fps", type=float, required=True)
    parser.add_argument("--slowdown", type=float, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--outputs", type=Path, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
