"""What a worker does with one job: tensors in, slice run, tensors out. No bus, no threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from splitbus_runtime.engine import Array
from splitbus_runtime.shelf import Slice
from splitbus_schemas.errors import (
    ConfigError,
    DecodeError,
    MissingReferenceError,
    ModelError,
    PayloadTooLargeError,
)
from splitbus_schemas.packet import pack_tensor, unpack_tensor
from splitbus_schemas.packet_types import LACKS_REFERENCE, Job, Result, Spent, Tensor
from splitbus_schemas.references import Held
from splitbus_worker.admission import Refused

Run: TypeAlias = Callable[[Slice, dict[str, Array]], list[tuple[str, Array, bool]]]
"""How a slice is run."""


@dataclass(frozen=True, slots=True)
class Output:
    """A stage's tensors, coded, and the microseconds that each step took."""

    tensors: tuple[Tensor, ...]
    decode_us: int
    run_us: int
    encode_us: int


def run_stage(job: Job, piece: Slice, held: Held | None = None, run: Run = Slice.run) -> Output:
    """Run `piece` on the job's tensors, which may be told as differences from what is `held` of their device.

    Raises Refused: "input" is the sender's fault, "run" the slice's, "reference" nobody's.
    """
    began = time.perf_counter()
    with piece.session.slowed():
        feeds, passed = _feeds(job, piece, held)
    decoded = time.perf_counter()
    try:
        outputs = run(piece, feeds)
    except ModelError as error:
        raise Refused("run", str(error)) from error
    ran = time.perf_counter()
    coding = job.route[0].coding
    try:
        with piece.session.slowed():
            made = [
                pack_tensor(name, array, coding, final=final, coder=piece.coders.get(name))
                for name, array, final in outputs
            ]
    except (KeyError, ConfigError, PayloadTooLargeError) as error:
        raise Refused("run", f"the output cannot be sent: {error}") from error
    encoded = time.perf_counter()
    names = {tensor.name for tensor in made}
    tensors = (*made, *(tensor for tensor in passed if tensor.name not in names))
    return Output(tensors, _us(began, decoded), _us(decoded, ran), _us(ran, encoded))


def _feeds(job: Job, piece: Slice, held: Held | None) -> tuple[dict[str, Array], list[Tensor]]:
    """Arrays for the slice, and the tensors that are passed on. One may be both."""
    wanted = {spec.name for spec in piece.manifest.inputs}
    feeds: dict[str, Array] = {}
    passed: list[Tensor] = []
    try:
        for tensor in job.tensors:
            if tensor.name in wanted:
                feeds[tensor.name] = unpack_tensor(tensor, piece.coders.get(tensor.name), held)
            elif not tensor.final:
                raise Refused("input", f"slice {piece.id[:12]} does not take tensor {tensor.name[:80]!r}")
            if tensor.final:
                passed.append(tensor)
        piece.check(feeds)
    except MissingReferenceError as error:
        raise Refused(LACKS_REFERENCE, str(error)) from error
    except (DecodeError, ModelError) as error:
        raise Refused("input", str(error)) from error
    return feeds, passed


def next_packet(job: Job, output: Output, spent: Spent) -> Job | Result:
    """What is sent on: the job for the next node with what is left of its budget, or the answer.

    Raises Refused for a job whose budget is spent: the next node would only drop it.
    """
    history = (*job.spent, spent)
    if len(job.route) == 1:
        return Result(job.frame, job.plan, job.epoch, job.attempt, output.tensors, history)
    left_us = job.budget_us - spent.total_us - spent.train_us
    if job.budget_us and left_us <= 0:
        raise Refused("expired", f"{spent.node} was done {-left_us / 1e3:.0f} ms after the frame's deadline")
    budget_us = left_us if job.budget_us else 0
    return replace(job, budget_us=budget_us, route=job.route[1:], tensors=output.tensors, spent=history)


def _us(begin: float, end: float) -> int:
    return int((end - begin) * 1e6)
