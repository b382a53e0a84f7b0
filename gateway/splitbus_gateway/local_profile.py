"""Profiles a model file on this machine, with no bus and no registry: what `splitbus profile` and benchmarks run."""

from __future__ import annotations

import math
import platform
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from typing import Final

from splitbus_gateway.graph import ModelGraph, SliceGraph, cut_at, extract, useful_cuts
from splitbus_gateway.profile_file import ProfileFile
from splitbus_gateway.profiling import anchor_cuts
from splitbus_gateway.slicing import slice_spec
from splitbus_runtime.engine import open_session
from splitbus_runtime.processor import processor
from splitbus_runtime.profiler import Stopwatch, Told, profile
from splitbus_runtime.shelf import Slice
from splitbus_schemas.messages import Anchor, ProfileRequest, SliceManifest

NODE: Final = "here"
"""How a profile calls the machine that it was taken on; who reads it gives it a name."""


@dataclass(frozen=True, slots=True)
class Span:
    """A slice by the cuts between which it lies."""

    first: int
    last: int

    @property
    def id(self) -> str:
        """Stands for the slice's hash: nothing is stored here."""
        return sha256(f"{self.first} {self.last}".encode()).hexdigest()


class LocalSlices:
    """Slices of one model, cut and opened when asked for."""

    def __init__(self, graph: ModelGraph, *, threads: int = 0, slowdown: float = 1.0) -> None:
        self.graph, self._threads, self._slowdown = graph, threads, slowdown
        self._spans: dict[str, Span] = {}

    def name(self, first: int, last: int) -> str:
        """The id by which `open` knows the slice."""
        span = Span(first, last)
        self._spans[span.id] = span
        return span.id

    def open(self, slice_id: str) -> Slice:
        """The slice. Raises ModelError."""
        span = self._spans[slice_id]
        part = extract(self.graph, span.first, span.last)
        session = open_session(
            part.model,
            weights={weight.name: weight.array() for weight in part.weights},
            threads=self._threads,
            slowdown=self._slowdown,
            what=f"the part of {self.graph.path} between cuts {span.first} and {span.last}",
        )
        return Slice(slice_id, _manifest(self.graph, span, part), session, 0)

    def request(self, batches: Sequence[int] = (1,), *, ratio: float = math.inf) -> ProfileRequest:
        """What a node would be asked to time of this model.

        Its blocks end at the useful cuts, also at those where, up to `ratio`, more crosses than the model's inputs.
        """
        end = self.graph.steps
        cuts = [*(cut.index for cut in useful_cuts(self.graph, ratio=ratio).cuts), end]
        return ProfileRequest(
            model=self.graph.sha256,
            cuts=cuts,
            blocks=[self.name(first, last) for first, last in pairwise((0, *cuts))],
            whole=self.name(0, end),
            anchors=[Anchor(cut=cut, head=self.name(0, cut), tail=self.name(cut, end)) for cut in anchor_cuts(cuts)],
            batches=list(batches),
        )


def profile_here(
    graph: ModelGraph,
    *,
    threads: int = 0,
    slowdown: float = 1.0,
    batches: Sequence[int] = (1,),
    progress: Callable[[Told], None] = lambda _: None,
) -> ProfileFile:
    """The model's profile on this machine, with more cuts than any gateway considers. Raises ModelError."""
    slices = LocalSlices(graph, threads=threads, slowdown=slowdown)
    request = slices.request(batches)
    taken = profile(
        request,
        slices,
        node=NODE,
        boot=NODE,
        local=open_session(graph.path, threads=threads, slowdown=slowdown),
        stopwatch=Stopwatch(threads, slowdown),
        progress=progress,
    )
    return ProfileFile(
        model_name=graph.path.name,
        machine=machine(),
        threads=threads,
        slowdown=slowdown,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        after=[cut_at(graph, cut).after for cut in request.cuts],
        profile=taken,
    )


def machine() -> str:
    """Host name, processor and system, for people."""
    return f"{socket.gethostname()}, {processor()}, {platform.system()}"


def _manifest(graph: ModelGraph, span: Span, part: SliceGraph) -> SliceManifest:
    return SliceManifest(
        model=graph.sha256,
        first=span.first,
        last=span.last,
        codec_in="raw",
        codec_out="raw",
        graph=part.sha256,
        graph_bytes=len(part.model),
        inputs=[slice_spec(spec, part) for spec in part.inputs],
        outputs=[slice_spec(spec, part) for spec in part.outputs],
        weights=[],
    )
