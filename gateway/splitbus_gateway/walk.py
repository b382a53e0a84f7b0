"""Takes samples through a model block by block, so that the tensors of one cut alone are in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from splitbus_gateway.graph import Cut, ModelGraph, extract, open_slice
from splitbus_gateway.samples import Feed
from splitbus_runtime.engine import Array, Session

WORKERS: Final = os.cpu_count() or 1


@dataclass(frozen=True)
class Here:
    """The samples as they cross a cut: `values` by tensor name, and the answers that are `done` before it."""

    cut: Cut
    values: list[dict[str, Array]]
    done: list[dict[str, Array]]


def walk(graph: ModelGraph, cuts: Sequence[Cut], samples: Sequence[Feed]) -> Iterator[Here]:
    """The samples at each of the cuts, in order. Raises ModelError when the model cannot be run on them."""
    before = 0
    values = [dict(feed) for feed in samples]
    done: list[dict[str, Array]] = [{} for _ in samples]
    for cut in cuts:
        if cut.index > before:
            block = extract(graph, before, cut.index)
            session = open_slice(block, threads=1)
            found = run_each(session, values)
            done = [old | {n: new[n] for n in block.finished} for old, new in zip(done, found, strict=True)]
            values = found
            before = cut.index
        names = [tensor.name for tensor in cut.tensors]
        values = [{name: value[name] for name in names} for value in values]
        yield Here(cut, values, done)


def run_each(session: Session, feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """What `run_named` gives for each, several at once: onnxruntime lets other threads run. Not for timing."""
    with ThreadPoolExecutor(min(WORKERS, max(len(feeds), 1)), thread_name_prefix="walk") as pool:
        return list(pool.map(lambda feed: run_named(session, feed), feeds))


def run_named(session: Session, values: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs by name, of inputs that are among `values`."""
    names = [info.name for info in session.outputs]
    return dict(zip(names, session.run({info.name: values[info.name] for info in session.inputs}), strict=True))
