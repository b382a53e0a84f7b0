"""A camera's program with durable frames, which the tests kill: python durable_camera.py FOLDER OPTIONS.json.

It takes frames one by one, notes in `accepted` each that the session took over, and applies each answer by one line in
`applied`. Only an answer that says it is repeated is looked up there first: that is all that the promise leaves to it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from splitbus_device import Answer, Durable, InferenceSession

SHAPE = (1, 3, 16, 16)


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def frame(number: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(number).standard_normal(SHAPE).astype(np.float32)}


class Notes:
    """A file of one line for each entry; a line is there or not, whenever the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, **entry: Any) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def main(folder: Path, options: dict[str, Any]) -> None:
    accepted, applied, repeats = (Notes(folder / name) for name in ("accepted", "applied", "repeats"))
    room = threading.Semaphore(8)

    def apply(answer: Answer) -> None:
        if answer.outcome == "known":  # killed after the session took the frame over, and before it was noted
            assert answer.key in {entry["key"] for entry in applied.read()}
            return
        if answer.repeated and answer.key in {entry["key"] for entry in applied.read()}:
            repeats.add(key=answer.key)
        else:
            applied.add(
                key=answer.key, outcome=answer.outcome, outputs=[output.tolist() for output in answer.outputs],
                route=answer.route, repeated=answer.repeated, ran=[s.where for s in answer.steps if s.what == "run"],
            )  # fmt: skip
            time.sleep(options["linger"])  # applied, and the session does not know yet

    def apply_and_go_on(answer: Answer) -> None:
        apply(answer)
        room.release()

    durable = Durable(folder=folder / "journal", fsync=options["fsync"])
    with InferenceSession(options["model"], durable=durable, **options["session"]) as session:
        say("open")
        for answer in session.resumed():
            apply(answer)
        until = time.monotonic() + options["wait_plan"]
        while session.plan == "local" and time.monotonic() < until:
            time.sleep(0.005)
        say("ready")
        first = max((entry["number"] + 1 for entry in accepted.read()), default=0)
        for number in range(first, first + options["frames"]):
            room.acquire()
            session.submit(frame(number), apply_and_go_on, key=f"frame {number}")
            accepted.add(number=number)
    say(json.dumps(dict(session.journal.counters) if session.journal else {}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
