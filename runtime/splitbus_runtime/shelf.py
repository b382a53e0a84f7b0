"""Slices kept warm: fetched by hash, opened, and dropped again, least recently used first, at a memory limit."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

from splitbus_runtime import heap
from splitbus_runtime.engine import Array, Session, has_shape, open_session, slowed
from splitbus_runtime.store import BlobStore
from splitbus_runtime.trust import Trust
from splitbus_schemas.entropy import Coder, read_coder
from splitbus_schemas.errors import DecodeError, ModelError, SignatureError
from splitbus_schemas.messages import SliceManifest, TablesRef, decode_message
from splitbus_schemas.packet import dtype_name
from splitbus_schemas.signature import SLICE

SESSION_OVERHEAD_BYTES: Final = 4 * 2**20
"""What onnxruntime takes for a session beside its weights: arenas, the graph, kernels (measured: 2 to 6 MB)."""

DEFAULT_LIMIT_BYTES: Final = 1 * 2**30


@dataclass(frozen=True)
class Slice:
    """A slice that can be run now."""

    id: str
    manifest: SliceManifest
    session: Session
    cost_bytes: int
    coders: Mapping[str, Coder] = field(default_factory=dict)
    """Of the tensors that cross as coefficients, by name."""

    def run(self, feeds: Mapping[str, Array]) -> list[tuple[str, Array, bool]]:
        """Name, array and whether it is final, for each output. Raises ModelError for feeds that do not fit."""
        self.check(feeds)
        outputs = self.session.run({spec.name: feeds[spec.name] for spec in self.manifest.inputs})
        return [
            (spec.name, array, spec.final) for spec, array in zip(self.manifest.outputs, outputs, strict=True)
        ]  # fmt: skip

    def check(self, feeds: Mapping[str, Array]) -> None:
        """Raises ModelError naming the tensor that is missing or does not fit."""
        for spec in self.manifest.inputs:
            array = feeds.get(spec.name)
            if array is None:
                raise ModelError(f"slice {self.id[:12]} needs tensor {spec.name!r}, which did not come")
            if dtype_name(array) != spec.dtype or not has_shape(array, spec.shape):
                raise ModelError(
                    f"slice {self.id[:12]} takes {spec.name!r} as {spec.dtype}{spec.shape}, "
                    f"not {array.dtype.name}{list(array.shape)}"
                )


class Shelf:
    """Warm slices of one node. Thread-safe; a slice is opened once however many ask for it."""

    def __init__(
        self,
        store: BlobStore,
        fetch: Callable[[str], None],
        *,
        threads: int = 0,
        slowdown: float = 1.0,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        trust: Trust | None = None,
    ) -> None:
        self._store = store
        self._trust = trust or Trust()
        self._fetch = fetch
        self._threads = threads
        self._slowdown = slowdown
        self._limit_bytes = limit_bytes
        self._warm: OrderedDict[str, Slice] = OrderedDict()
        self._opening: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._gone = threading.Event()
        self.evictions = 0

    def get(self, slice_id: str) -> Slice | None:
        """The slice when it is warm."""
        with self._lock:
            found = self._warm.get(slice_id)
            if found is not None:
                self._warm.move_to_end(slice_id)
            return found

    def load(self, slice_id: str) -> Slice:
        """The slice, fetched and opened if need be. Raises BlobError or ModelError."""
        with self._lock:
            opening = self._opening.setdefault(slice_id, threading.Lock())
        with opening:
            return self.get(slice_id) or self._keep(self.open(slice_id))

    def open(self, slice_id: str) -> Slice:
        """The slice, not kept on the shelf. Raises BlobError or ModelError."""
        manifest = self.manifest(slice_id)
        for weight in manifest.weights:
            if not (self._store.check(weight.sha256) or self._store.holds(weight)):
                self._fetch(weight.sha256)
        weights = {weight.name: self._store.weight(weight) for weight in manifest.weights}
        session = open_session(
            self._bytes(manifest.graph),
            weights=weights,
            threads=self._threads,
            slowdown=self._slowdown,
            what=f"slice {slice_id[:12]}",
        )
        cost = SESSION_OVERHEAD_BYTES + sum(weight.bytes for weight in manifest.weights)
        cost += sum(part.bytes for part in manifest.tables)
        coders = {part.tensor: self._coder(slice_id, part) for part in manifest.tables}
        opened = Slice(slice_id, manifest, session, cost, coders)
        weakref.finalize(opened, self._gone.set).atexit = False
        return opened

    def slowed(self) -> AbstractContextManager[None]:
        """For what this node computes beside its slices, as `Session.slowed`."""
        return slowed(self._slowdown)

    def drop(self, keep: set[str]) -> None:
        """Close all slices but those."""
        with self._lock:
            for slice_id in [known for known in self._warm if known not in keep]:
                del self._warm[slice_id]

    def tidy(self) -> bool:
        """Give back the memory of slices that are gone since the last call; whether there were any.

        A frame that runs keeps its slice, so that it goes some time after it was dropped.
        """
        if not self._gone.is_set():
            return False
        self._gone.clear()
        heap.trim()
        return True

    @property
    def ready(self) -> list[str]:
        """The ids of warm slices."""
        with self._lock:
            return list(self._warm)

    @property
    def cost_bytes(self) -> int:
        """What the warm slices cost."""
        with self._lock:
            return sum(kept.cost_bytes for kept in self._warm.values())

    def _keep(self, opened: Slice) -> Slice:
        if opened.cost_bytes > self._limit_bytes:
            raise ModelError(
                f"slice {opened.id[:12]} needs {opened.cost_bytes >> 20} MB, "
                f"this node's limit is {self._limit_bytes >> 20} MB: raise memory_mb or exclude the node"
            )
        with self._lock:
            self._warm[opened.id] = opened
            while sum(kept.cost_bytes for kept in self._warm.values()) > self._limit_bytes:
                self._warm.popitem(last=False)
                self.evictions += 1
        return opened

    def manifest(self, slice_id: str) -> SliceManifest:
        """What the slice is, fetched if need be. Raises BlobError or ModelError."""
        data = self._bytes(slice_id)
        try:
            return decode_message(SliceManifest, self._trust.open(SLICE, data))
        except SignatureError as error:
            raise ModelError(f"slice {slice_id[:12]} is {error.counter} and not opened: {error}") from None
        except DecodeError as error:
            raise ModelError(f"slice {slice_id[:12]} has a manifest that cannot be read: {error}") from None

    def _coder(self, slice_id: str, part: TablesRef) -> Coder:
        try:
            return read_coder(self._bytes(part.sha256))
        except DecodeError as error:
            raise ModelError(f"slice {slice_id[:12]} has tables that cannot be read: {error}") from None

    def _bytes(self, sha256: str) -> bytes:
        if not self._store.check(sha256):
            self._fetch(sha256)
        return self._store.read(sha256)
