"""Measures what each codec makes of each cut: coded bytes, time to encode and decode, and what the answers lose.

Exactly as on the wire: the codec's own nodes run in onnxruntime, then a packet is encoded and decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from splitbus_gateway.ends import Ends
from splitbus_gateway.graph import Cut, ModelGraph, extract, open_slice
from splitbus_gateway.judging import BY_ANSWERS, Judge, Verdict
from splitbus_gateway.records import CodedSize
from splitbus_gateway.samples import Feed
from splitbus_gateway.second_look import Sent, has_lead, look_again
from splitbus_gateway.transform import Calibrated
from splitbus_gateway.walk import WORKERS, Here, run_each, run_named, walk
from splitbus_runtime.engine import Array, open_session
from splitbus_schemas import packet
from splitbus_schemas.codecs import CODECS, TRANSFORM, Codec
from splitbus_schemas.entropy import Coder
from splitbus_schemas.packet_types import FrameId, Hop, Job, Packet, Result
from splitbus_schemas.pictures import is_picture

Progress: TypeAlias = Callable[[int, int], None]
"""Cuts done, and cuts in all."""

TIMED: Final = 12
"""Samples that cross a cut one after the other, with the machine to themselves: times are theirs."""

NONE_CALIBRATED: Final[Mapping[str, Calibrated]] = MappingProxyType({})

_ID = "0" * 16
_HASH = "0" * 64
_FRAME = FrameId(_ID, _ID, 10**6)
_TOPIC = f"splitbus/v1/home/reply/{_ID}/{_ID}"


@dataclass(frozen=True)
class Measured:
    """A model's figures on this machine, on one thread. `sizes` has an entry for each cut and codec that carries it."""

    whole_ms: float
    answer_bytes: int
    sizes: tuple[CodedSize, ...]
    accuracy: float | None = None
    """The un-split model's, with labels."""


def carries(codec: Codec, cut: Cut, transforms: Collection[str] = ()) -> bool:
    """Whether the codec is one for the cut: those for pictures are where a picture crosses, a transform where one was
    found for a tensor.
    """
    if codec.nodes == TRANSFORM:
        return any(tensor.name in transforms for tensor in cut.tensors)
    return not codec.pictures or any(is_picture(tensor.dtype, tensor.sizes) for tensor in cut.tensors)


def silent(_done: int, _total: int) -> None:
    """No progress shown."""


def measure(
    graph: ModelGraph,
    cuts: Sequence[Cut],
    samples: Sequence[Feed],
    *,
    codecs: Sequence[str] = tuple(CODECS),
    transforms: Mapping[str, Calibrated] = NONE_CALIBRATED,
    judge: Judge = BY_ANSWERS,
    progress: Progress = silent,
) -> Measured:
    """Measure every codec at every cut that it is for. Raises ModelError when the model does not run on the samples."""
    progress(0, len(cuts))
    answers, whole_ms = _run_whole(graph, samples)
    judge.check(answers)
    sizes: list[CodedSize] = []
    for done, here in enumerate(walk(graph, cuts, samples), start=1):
        sizes += _measure_cut(graph, here, answers, codecs, transforms, judge)
        progress(done, len(cuts))
    size = int(np.median([len(packet.encode(_result(answer))) for answer in answers]))
    return Measured(whole_ms, size, tuple(sizes), judge.accuracy(answers))


def _run_whole(graph: ModelGraph, samples: Sequence[Feed]) -> tuple[list[dict[str, Array]], float]:
    session = open_session(graph.path, threads=1)
    session.run(samples[0], graph.outputs)
    answers, times = [], []
    for feed in samples:
        started = time.perf_counter()
        found = session.run(feed, graph.outputs)
        times.append(time.perf_counter() - started)
        answers.append(dict(zip(graph.outputs, found, strict=True)))
    return answers, float(np.median(times)) * 1e3


def _measure_cut(
    graph: ModelGraph,
    here: Here,
    answers: Sequence[Mapping[str, Array]],
    codecs: Sequence[str],
    transforms: Mapping[str, Calibrated],
    judge: Judge,
) -> list[CodedSize]:
    rest = extract(graph, here.cut.index, graph.steps)
    tail = open_slice(rest, threads=1)
    sizes, unchanged = [], Verdict(1.0, 0.0, judge.accuracy(answers))
    own = {t.name: transforms[t.name] for t in here.cut.tensors if t.name in transforms}
    ends = Ends(here.cut.tensors, own, graph.opset, graph.proto.ir_version)
    sent: dict[str, Sent] = {}
    for codec in (CODECS[name] for name in codecs):
        if codec.again or not carries(codec, here.cut, own):
            continue
        crossed = _cross(here, codec, ends)
        timed = [(one.encode_s * 1e3, one.decode_s * 1e3) for one in crossed[:TIMED]]
        encode_ms, decode_ms = np.median(timed, axis=0).tolist()
        once = Sent(np.array([one.size for one in crossed]), encode_ms, decode_ms, ())
        verdict = unchanged
        if not codec.lossless:
            found = run_each(tail, [one.decoded for one in crossed])
            verdict = judge.judge(answers, found, rest.finished)
            once = replace(once, answers=found)
        if codec.nodes == TRANSFORM and has_lead(answers[0], rest.finished):  # else answers are large, and of no use
            sent[codec.name] = once
        sizes.append(_coded(here.cut.index, codec, once, verdict))
    for codec in (CODECS[name] for name in codecs):
        if not codec.again or not sent.keys() >= {codec.coding, codec.again}:
            continue
        looked = look_again(sent[codec.coding], sent[codec.again], answers, rest.finished, judge)
        if looked is not None:
            told = {"again": looked.share, "below": looked.below}
            sizes.append(_coded(here.cut.index, codec, looked.sent, looked.verdict).model_copy(update=told))
    return sizes


def _coded(cut: int, codec: Codec, sent: Sent, verdict: Verdict) -> CodedSize:
    return CodedSize(
        cut=cut,
        codec=codec.name,
        p50_bytes=round(float(np.median(sent.sizes))),
        p90_bytes=round(float(np.quantile(sent.sizes, 0.9))),
        encode_ms=round(sent.encode_ms, 4),
        decode_ms=round(sent.decode_ms, 4),
        mean_bytes=round(float(np.mean(sent.sizes))),
        agreement=round(verdict.agreement, 4),
        error=round(verdict.error, 6) if np.isfinite(verdict.error) else None,
        accuracy=None if verdict.accuracy is None else round(verdict.accuracy, 4),
    )


@dataclass(frozen=True)
class _Crossing:
    """One sample under one codec at one cut."""

    size: int
    encode_s: float
    decode_s: float
    decoded: dict[str, Array]


def _cross(here: Here, codec: Codec, ends: Ends) -> list[_Crossing]:
    """Encode and decode the tensors of every sample: the first TIMED alone, for times, and the first once more, which
    pays for memory; then the others, several at once.
    """
    cross = partial(_cross_one, codec, ends)
    cross(here.values[0], here.done[0])
    alone = [cross(*pair) for pair in zip(here.values[:TIMED], here.done[:TIMED], strict=True)]
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="cross") as pool:
        return [*alone, *pool.map(cross, here.values[TIMED:], here.done[TIMED:])]


def _cross_one(codec: Codec, ends: Ends, values: Mapping[str, Array], done: Mapping[str, Array]) -> _Crossing:
    plain, head, tail = ends.of(codec.nodes or "raw")
    started = time.perf_counter()
    sent = {name: values[name] for name in plain} | (run_named(head, values) if head else {})
    data = packet.encode(_job(sent, done, codec.coding, ends.coders))
    between = time.perf_counter()
    came = _arrays(packet.decode(data), ends.coders)
    decoded = {name: came[name] for name in plain} | (run_named(tail, came) if tail else {})
    return _Crossing(len(data), between - started, time.perf_counter() - between, decoded)


def _job(values: Mapping[str, Array], done: Mapping[str, Array], coding: str, coders: Mapping[str, Coder]) -> Job:
    tensors = [
        packet.pack_tensor(name, array, coding, final=name in done, coder=coders.get(name))
        for name, array in values.items()
    ]
    tensors += [packet.pack_tensor(n, array, coding, final=True) for n, array in done.items() if n not in values]
    return Job(_FRAME, _HASH, _ID, 1, 0, 10**5, _TOPIC, (Hop(_ID, _HASH, "zstd"),), tuple(tensors))


def _result(answer: Mapping[str, Array]) -> Result:
    tensors = tuple(packet.pack_tensor(name, array, "raw", final=True) for name, array in answer.items())
    return Result(_FRAME, _ID, 1, 0, tensors)


def _arrays(job: Packet, coders: Mapping[str, Coder]) -> dict[str, Array]:
    tensors = job.tensors if isinstance(job, Job) else ()
    return {tensor.name: packet.unpack_tensor(tensor, coders.get(tensor.name)) for tensor in tensors}
