"""Sealing: what it takes of a frame's time at either end, and of the wire, beside the same frame in clear.

    .venv/bin/python benchmarks/seal.py [--seconds S] [--json FILE]

A job with activations of 10 kB, 160 kB and 1 MB goes from a camera to a worker, its bytes handed over in memory: from
tensors as they are coded to bytes, and from bytes to tensors as they are decoded. Clear and sealed take turns within
one run; medians. `session` is what the first frame to a worker takes beside the others: both agree on a key. The
codec's own time is in neither: packet.py and codec.py have it.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from _report import Figure, parser, report

from splitbus_runtime.hpke import Secret
from splitbus_runtime.keyring import Keyring, Known
from splitbus_runtime.sealing import Sealer
from splitbus_runtime.trust import Trust
from splitbus_schemas.messages import NodeStatus
from splitbus_schemas.packet import decode, encode, pack_tensor
from splitbus_schemas.packet_types import Job, Sealed
from splitbus_schemas.seal_keys import key_id

sys.path.insert(1, str(Path(__file__).parents[1]))
from tests.packets import FRAME, job

SIZES: Final = {"10kB": 10_000, "160kB": 160_000, "1MB": 1_000_000}
SECONDS: Final = 2.0
MIN_ROUNDS: Final = 50


class Pair:
    """A camera and a worker that know each other's keys."""

    def __init__(self) -> None:
        secrets = {"cam1": Secret.generate(), "edge1": Secret.generate()}
        keys = {(node, key_id(secret.public)): secret.public for node, secret in secrets.items()}
        known = Known(1, keys=keys, workers=frozenset({"edge1"}), devices=frozenset({"cam1"}))
        self.camera, self.worker = (self._sealer(node, secret, known) for node, secret in secrets.items())
        self.camera.note(
            NodeStatus(state="ready", node="edge1", boot="b", tier="edge", seal=self.worker.state)
        )  # fmt: skip

    def _sealer(self, node: str, secret: Secret, known: Known) -> Sealer:
        keyring = Keyring(Trust(), site="home", path=Path(os.devnull) / "keys.json")
        keyring.known = known
        return Sealer(secret, keyring, site="home", node=node, era=FRAME.boot if node == "cam1" else None)

    def seal(self, sent: Job) -> bytes:
        return encode(self.camera.seal_for_worker(sent, "edge1"))

    def open(self, data: bytes) -> object:
        found = decode(data)
        if not isinstance(found, Sealed):
            raise TypeError(f"a {type(found).__name__} is not sealed")
        return self.worker.open(found)


def main() -> None:
    """Measure every size, and the beginning of a session."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=SECONDS, help="time to spend on each size")
    arguments = options.parse_args()
    figures = [figure for label, size in SIZES.items() for figure in measure(label, size, arguments.seconds)]
    report("sealing", [*figures, *session(arguments.seconds)], arguments.json)


def measure(label: str, size: int, seconds: float) -> Iterator[Figure]:
    """One size, at either end."""
    pair = Pair()
    noise = np.random.default_rng(7).integers(0, 256, size, np.uint8)
    clear = job((pack_tensor("x", noise, "raw"),))
    sent = replace(clear, answer=pair.camera.key)
    clear_bytes = encode(clear)
    sealed = iter(partial(pair.seal, sent), b"")  # each is opened once, as on a real way
    steps: dict[str, Callable[[], object]] = {
        "send.clear": partial(encode, clear),
        "send.sealed": partial(pair.seal, sent),
        "receive.clear": partial(decode, clear_bytes),
    }
    times = turns(steps, seconds, before={"receive.sealed": (sealed.__next__, pair.open)})
    for name in (*steps, "receive.sealed"):
        yield Figure(f"seal.{name}_us.{label}", times[name], "us")
    for end in ("send", "receive"):
        more = times[f"{end}.sealed"] - times[f"{end}.clear"]
        yield Figure(f"seal.{end}.more_us.{label}", more, "us", f"{more * 1e3 / size:.2f} ns a byte")
    more_bytes = len(pair.seal(sent)) - len(clear_bytes)
    yield Figure(
        f"seal.more_bytes.{label}", more_bytes, "B", f"of {len(clear_bytes)}: {more_bytes / len(clear_bytes):.2%}"
    )


def turns(
    steps: Mapping[str, Callable[[], object]],
    seconds: float,
    *,
    before: Mapping[str, tuple[Callable[[], bytes], Callable[[bytes], object]]],
) -> dict[str, float]:
    """The median of each step in microseconds; `before` gives each run of a step an input of its own, untimed."""
    readings: dict[str, list[float]] = {name: [] for name in (*steps, *before)}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(readings[next(iter(readings))]) < MIN_ROUNDS:
        for name, run in steps.items():
            readings[name].append(timed(run))
        for name, (prepare, take) in before.items():
            readings[name].append(timed(partial(take, prepare())))
    return {name: statistics.median(values) for name, values in readings.items()}


def session(seconds: float) -> Iterator[Figure]:
    """The first frame of a session, of ten bytes."""
    tiny = job((pack_tensor("x", np.zeros(10, np.uint8), "raw"),))
    first: dict[str, list[float]] = {"send": [], "receive": []}
    later: dict[str, list[float]] = {"send": [], "receive": []}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pair = Pair()
        sent = replace(tiny, answer=pair.camera.key)
        for readings in (first, later):
            begun = time.perf_counter()
            data = pair.seal(sent)
            readings["send"].append((time.perf_counter() - begun) * 1e6)
            readings["receive"].append(timed(partial(pair.open, data)))
    for which in ("send", "receive"):
        more = statistics.median(first[which]) - statistics.median(later[which])
        yield Figure(f"seal.session.{which}_us", more, "us", "once for each worker and life of either end")


def timed(run: Callable[[], object]) -> float:
    """Microseconds of one run."""
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1e6


if __name__ == "__main__":
    main()
