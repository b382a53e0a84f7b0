"""A camera as a process of its own: python scene_camera.py OPTIONS.json. It ends with its input.

Frames come at a steady rate, whatever becomes of them. Each that is asked, and each answer with how far it is from
plain onnxruntime's, is a line of the file `out`; times are of time.monotonic(), which all processes of a machine share.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
from tests.e2e.picture_model import one_thread
from tests.faults.camera import Log
from tests.faults.scene_frames import FRAMES, frame

from splitbus_device import Answer, Durable, InferenceSession


class Reference:
    """Plain onnxruntime's answers to all frames, asked for beforehand: kept bit by bit they would tear up the heap."""

    def __init__(self, model: str) -> None:
        session = ort.InferenceSession(model, one_thread(), providers=["CPUExecutionProvider"])
        self._known = [session.run(None, {"x": frame(index)})[0] for index in range(FRAMES)]

    def off(self, index: int, given: Any) -> float:
        """How far an answer is from the right one; as far as can be when it has another shape."""
        expected = self._known[index % FRAMES]
        if len(given) != 1 or given[0].shape != expected.shape:
            return float("inf")
        return float(np.abs(given[0] - expected).max() / np.abs(expected).max())


def wait_for_the_end(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def main(options: dict[str, Any]) -> None:
    notes, reference = Log(Path(options["out"])), Reference(options["model"])
    durable = Durable(**options["durable"]) if options["durable"] else None
    with InferenceSession(options["model"], one_thread(), durable=durable, **options["session"]) as session:

        def keep(index: int, asked: float, answer: Answer) -> None:
            at = time.monotonic()
            notes.write(
                index=index, asked=asked, at=at, outcome=answer.outcome, route=answer.route, codecs=answer.codecs,
                plan=answer.plan, epoch=answer.epoch, late=answer.late, reason=answer.reason,
                off=reference.off(index, answer.outputs) if answer.outcome == "answered" else 0.0,
            )  # fmt: skip

        stop = threading.Event()
        threading.Thread(target=wait_for_the_end, args=[stop], daemon=True).start()
        begun, index, period = time.monotonic(), 0, 1 / options["fps"]
        while not stop.wait(max(0.0, begun + index * period - time.monotonic())):
            pixels, key = frame(index), f"frame {index}" if durable else None
            asked = time.monotonic()
            notes.write(ask=index, at=asked)
            session.submit(
                {"x": pixels}, functools.partial(keep, index, asked), live=options["live"], key=key
            )  # fmt: skip
            index += 1


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
