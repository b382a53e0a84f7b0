"""The suite's camera, a process of its own: asks frames at a steady rate and writes down when, and what it was told.

`python -m tests.faults.camera OPTIONS` appends a JSON line for each frame asked and for each answer. Its times are its
own time.monotonic(), which all processes of a machine share; nothing of the client's is believed but the outputs.
"""

from __future__ import annotations

import argparse
import base64
import functools
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from tests.e2e.picture_model import one_thread, picture

from splitbus_device import Answer, InferenceSession


class Log:
    """Lines that outlive a kill -9 of the process: each is one write, and in the kernel's hands when it returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, **fields: Any) -> None:
        os.write(self._file, json.dumps(fields).encode() + b"\n")


def tell(log: Log, index: int, answer: Answer) -> None:
    """Called by the session, once a frame."""
    at = time.monotonic()
    outputs = [np.ascontiguousarray(output, np.float32) for output in answer.outputs]
    log.write(
        answered=index,
        at=at,
        outcome=answer.outcome,
        route=answer.route,
        attempts=answer.attempts,
        reason=answer.reason,
        codecs=answer.codecs,
        outputs=[base64.b64encode(array.tobytes()).decode() for array in outputs],
    )


def main() -> None:
    options = _options()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    log = Log(options.log)
    with InferenceSession(
        options.model, one_thread(), broker=options.broker, site=options.site, device=options.device,
        store=options.store, deadline=options.deadline, slowdown=options.slowdown,
    ) as session:  # fmt: skip
        index, begun = options.first, time.monotonic()
        log.write(began=index, at=begun)
        while not stop.wait(max(0.0, begun + (index - options.first) / options.fps - time.monotonic())):
            frame = {"x": picture(index)}
            log.write(asked=index, at=time.monotonic())
            session.submit(frame, functools.partial(tell, log, index))
            index += 1
    log.write(ended=index, at=time.monotonic())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in {
        "model": str, "broker": str, "site": str, "device": str, "deadline": float, "fps": float, "slowdown": float,
        "store": Path, "log": Path, "first": int,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
