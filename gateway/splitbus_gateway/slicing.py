"""Slices of registered models, made when first asked for; graph and manifest go into the store that nodes read."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

from splitbus_gateway.facts import ModelFacts
from splitbus_gateway.graph import SliceGraph, cut_at, extract, wire_tensors
from splitbus_gateway.graph import TensorSpec as GraphTensor
from splitbus_gateway.graph.codec_nodes import NO_TRANSFORMS, Transforms
from splitbus_gateway.profiling import anchor_cuts
from splitbus_gateway.records import ModelRecord
from splitbus_gateway.registry import Calibration, Registry
from splitbus_gateway.signing import Signer
from splitbus_gateway.switching import SliceSize
from splitbus_gateway.transform import node_coder, wire_name
from splitbus_schemas.codecs import CODECS, TRANSFORM
from splitbus_schemas.errors import ModelError
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import Anchor, ProfileRequest, SliceManifest, TablesRef, TensorSpec
from splitbus_schemas.signature import SLICE

Made: TypeAlias = tuple[str, SliceManifest]
"""A slice's id and its manifest."""
_Key: TypeAlias = tuple[str, int, int, str, str, Calibration]


class SliceBook:
    """The slices of a registry's models; `codecs` are those that plans may use. Thread-safe.

    With `proven`, models agree as far as their samples prove, not as far as they show.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        codecs: Sequence[str] = tuple(CODECS),
        signer: Signer | None = None,
        proven: bool = False,
    ) -> None:
        self._registry = registry
        self._signer = signer or Signer()
        self._codecs, self._proven = codecs, proven
        self._lock = threading.RLock()
        self._made: dict[_Key, Made] = {}
        self._models: dict[str, ModelFacts] = {}
        self._records: tuple[ModelRecord, ...] = ()

    def models(self) -> Mapping[str, ModelFacts]:
        """The models that can be planned, by their key in topics."""
        records = self._registry.list()
        with self._lock:
            if records != self._records:
                self._models = {
                    model_key(record.model): record.facts(self._codecs, proven=self._proven)
                    for record in reversed(records)
                }
                self._records = records
            return self._models

    def slice_id(self, model: str, first: int, last: int, codec_in: str, codec_out: str) -> str | None:
        """The slice between two cuts; None when there is nothing to run. Raises ModelError."""
        made = self.slice_for(model, first, last, codec_in, codec_out)
        return made[0] if made else None

    def slice_for(
        self, model: str, first: int, last: int, codec_in: str = "raw", codec_out: str = "raw"
    ) -> Made | None:
        """The slice between two cuts, with its manifest; None when there is nothing to run.

        Codecs whose nodes are the same give the same slice. Raises ModelError for a model that is not registered and
        for a cut that is not legal.
        """
        nodes = _nodes(codec_in), _nodes(codec_out)
        key = (model, first, last, *nodes, self._registry.calibrated(model) if TRANSFORM in nodes else None)
        with self._lock:
            made = self._made.get(key)
            if made is None or not self._is_stored(made):
                if first == last and self._is_empty(model, first, key[4]):
                    return None
                made = self._made[key] = self._make(*key[:5])
            return made

    def slice_size(self, slice_id: str) -> SliceSize | None:
        """What a node reads to have a slice; None when it was not made here."""
        with self._lock:
            made = next((manifest for made_id, manifest in self._made.values() if made_id == slice_id), None)
        if made is None:
            return None
        return SliceSize(made.graph_bytes + sum(t.bytes for t in made.tables), sum(w.bytes for w in made.weights))

    def profile_request(self, model: str) -> ProfileRequest:
        """The slices between neighbouring cuts, in order, to be timed. Raises ModelError."""
        record = self._record(model)
        cuts = sorted({cut.index for cut in record.cuts} - {0} | {record.steps})
        end = record.steps
        return ProfileRequest(
            model=model,
            cuts=cuts,
            blocks=[self._need(model, first, last) for first, last in pairwise((0, *cuts))],
            whole=self._need(model, 0, end),
            anchors=[
                Anchor(cut=cut, head=self._need(model, 0, cut), tail=self._need(model, cut, end))
                for cut in anchor_cuts(cuts)
            ],
        )

    def _need(self, model: str, first: int, last: int) -> str:
        made = self.slice_for(model, first, last)
        if made is None:
            raise ModelError(f"model {model_key(model)} has nothing to run between cuts {first} and {last}")
        return made[0]

    def _record(self, model: str) -> ModelRecord:
        record = self._registry.find_by_hash(model)
        if record is None:
            raise ModelError(f"model {model_key(model)} is not registered: use splitbus model add")
        return record

    def _is_stored(self, made: Made) -> bool:
        store = self._registry.store
        return all(map(store.check, (made[0], made[1].graph, *(tables.sha256 for tables in made[1].tables))))

    def _is_empty(self, model: str, index: int, codec: str) -> bool:
        tensors = cut_at(self._registry.graph(model), index).tensors
        coders = self._coders(model, codec)
        return all(wire_tensors(tensor, codec, coders) == (tensor,) for tensor in tensors)

    def _coders(self, model: str, *codecs: str) -> Transforms:
        if TRANSFORM not in codecs:
            return NO_TRANSFORMS
        return {name: node_coder(one.transform) for name, one in self._registry.transforms(model).items()}

    def _tables(self, model: str, part: SliceGraph) -> list[TablesRef]:
        """What the slice's coefficients are coded with, put into the store."""
        crossing = {spec.name for spec in (*part.inputs, *part.outputs)}
        blobs = {
            wire_name(name): one.tables.blob
            for name, one in self._registry.transforms(model).items()
            if wire_name(name) in crossing
        }
        store = self._registry.store
        return [TablesRef(tensor=name, sha256=store.put(blob), bytes=len(blob)) for name, blob in blobs.items()]

    def _make(self, model: str, first: int, last: int, codec_in: str, codec_out: str) -> Made:
        record, store = self._record(model), self._registry.store
        coders = self._coders(model, codec_in, codec_out)
        part = extract(
            self._registry.graph(model), first, last, codec_in=codec_in, codec_out=codec_out, transforms=coders
        )
        known = {weight.name: weight for weight in record.weights}
        manifest = SliceManifest(
            model=model,
            first=first,
            last=last,
            codec_in=codec_in,
            codec_out=codec_out,
            graph=store.put(part.model),
            graph_bytes=len(part.model),
            inputs=[slice_spec(spec, part) for spec in part.inputs],
            outputs=[slice_spec(spec, part) for spec in part.outputs],
            weights=[known[weight.name] for weight in part.weights],
            tables=self._tables(model, part) if coders else [],
        )
        return store.put(self._signer.seal(SLICE, manifest)), manifest


def _nodes(codec: str) -> str:
    """The name that stands for all codecs with the same nodes."""
    return CODECS[codec].nodes or "raw"


def slice_spec(spec: GraphTensor, part: SliceGraph) -> TensorSpec:
    """A slice's input or output as its manifest names it; sizes that are not known are None."""
    shape = [dim if isinstance(dim, int) else None for dim in spec.shape]
    return TensorSpec(name=spec.name, dtype=spec.dtype, shape=shape, final=spec.name in part.finished)
