"""A camera as a process of its own: a device session that answers commands, one JSON line each, on its input.

`{"ask": {"frames": 25, "seconds": 2, "least": 5}}` sends frames one at a time and gives their answers; `{"play": 10}`
begins to send so many a second, `{"stop": true}` ends that and gives all answers since. An answer's `off` is how far it
is from the un-split model's, relative to that one's largest value. Ends with its input.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime  # noqa: TID251 - the integrator's own session options, and the reference

from splitbus_demo.inputs import InputSource
from splitbus_device import Answer, InferenceSession

PICTURES: Final = 8
"""Different frames; more would keep a slow camera busy with drawing."""

Record = dict[str, Any]


class Spool:
    """Records in a file without a name: a camera whose memory is looked at holds none of what the benchmark notes."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed when it is dropped
        self._count = 0

    def append(self, record: Record) -> None:
        """One more."""
        self._file.write(json.dumps(record) + "\n")
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def read(self) -> list[Record]:
        """All of them, in order."""
        self._file.seek(0)
        return [json.loads(line) for line in self._file]


class Camera:
    """The commands."""

    def __init__(self, session: InferenceSession, model: Path) -> None:
        self._session = session
        self._feeds = frames(session, PICTURES)
        reference = onnxruntime.InferenceSession(str(model), _one_thread())
        self._expected = [reference.run(None, feeds) for feeds in self._feeds]
        self._lock = threading.Lock()
        self._records = Spool()
        self._player: threading.Thread | None = None
        self._stop = threading.Event()

    def ask(self, frames: int, seconds: float, least: int) -> list[Record]:
        """At most so many frames, and after so many seconds no more than the least."""
        begun = time.monotonic()
        found: list[Record] = []
        while len(found) < frames and (len(found) < least or time.monotonic() - begun < seconds):
            index, asked = len(found), time.monotonic()
            self._session.run(None, self._feeds[index % PICTURES])
            answer = self._session.last_answer
            if answer is not None:
                found.append(self._record(index, asked, answer, check=False))
        return found

    def play(self, fps: float) -> None:
        """Send so many frames a second from now on, never waiting for an answer."""
        self._stop.clear()
        self._records = Spool()
        self._player = threading.Thread(target=self._play, args=(fps,), name="camera")
        self._player.start()

    def stop(self) -> list[Record]:
        """End playing; the answers, in the order in which they came. Waits until all are there."""
        self._stop.set()
        if self._player is not None:
            self._player.join()
        deadline = time.monotonic() + 30
        while len(self._records) < self._sent and time.monotonic() < deadline:
            time.sleep(0.02)
        with self._lock:
            return self._records.read()

    def _play(self, fps: float) -> None:
        begun, self._sent = time.monotonic(), 0
        while not self._stop.wait(max(0.0, begun + self._sent / fps - time.monotonic())):
            index, asked = self._sent, time.monotonic()
            self._sent += 1
            self._session.submit(self._feeds[index % PICTURES], functools.partial(self._keep, index, asked))

    def _keep(self, index: int, asked: float, answer: Answer) -> None:
        record = self._record(index, asked, answer, check=True)
        with self._lock:
            self._records.append(record)

    def _record(self, index: int, asked: float, answer: Answer, *, check: bool) -> Record:
        return {
            "index": index,
            "asked": asked,
            "at": time.monotonic(),
            "outcome": answer.outcome,
            "total_ms": answer.total_ms,
            "route": answer.route,
            "plan": answer.plan,
            "epoch": answer.epoch,
            "attempts": answer.attempts,
            "reason": answer.reason,
            "cuts": answer.cuts,
            "codecs": answer.codecs,
            "bytes": sum(answer.cut_bytes),
            "steps": [(step.what, step.where, step.ms) for step in answer.steps],
            "off": self._off(index, answer.outputs) if check and answer.outputs else 0.0,
        }

    def _off(self, index: int, outputs: Sequence[Any]) -> float:
        """Infinite for answers of another shape."""
        worst = 0.0
        for found, wanted in zip(outputs, self._expected[index % PICTURES], strict=True):
            if found.shape != wanted.shape:
                return float("inf")
            scale = float(np.abs(wanted).max()) or 1.0
            worst = max(worst, float(np.abs(found.astype(np.float64) - wanted).max()) / scale)
        return worst


def frames(session: Any, count: int) -> list[dict[str, Any]]:
    """Pictures for whatever has `get_inputs`."""
    names = {"float": "float32", "double": "float64"}
    types = {info.name: info.type.removeprefix("tensor(").removesuffix(")") for info in session.get_inputs()}
    sources = {
        info.name: InputSource(info.shape, names.get(types[info.name], types[info.name]))
        for info in session.get_inputs()
    }
    # far apart in the camera's walk over its pictures, so that sizes differ as they will
    return [{name: source.array(17 * index) for name, source in sources.items()} for index in range(count)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--broker", required=True)
    options.add_argument("--site", required=True)
    options.add_argument("--device", required=True)
    options.add_argument("--store", type=Path, required=True)
    options.add_argument("--slowdown", type=float, required=True)
    options.add_argument("--deadline", type=float, required=True, help="seconds")
    chosen = options.parse_args()
    with InferenceSession(
        chosen.model, _one_thread(), broker=chosen.broker, site=chosen.site, device=chosen.device, store=chosen.store,
        slowdown=chosen.slowdown, deadline=chosen.deadline,
    ) as session:  # fmt: skip
        camera = Camera(session, chosen.model)
        _say({"ready": True})
        for line in sys.stdin:
            _say(_do(camera, json.loads(line)))


def _do(camera: Camera, command: dict[str, Any]) -> dict[str, Any]:
    match command:
        case {"ask": wish}:
            return {"answers": camera.ask(**wish)}
        case {"play": fps}:
            camera.play(fps)
            return {}
        case {"stop": _}:
            return {"answers": camera.stop()}
    return {"error": f"no such command: {command}"}


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _one_thread() -> Any:
    """A camera has one slow core; with one thread its emulated speed is exact."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    return settings


if __name__ == "__main__":
    main()
