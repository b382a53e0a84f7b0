"""The two ends of a cut without its slices: a codec's nodes alone, as sessions that encode and decode its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from onnx import ModelProto, ValueInfoProto, helper

from splitbus_gateway.graph import TensorSpec, wire_tensors
from splitbus_gateway.graph.codec_nodes import Nodes, Transforms, decode, encode
from splitbus_gateway.graph.tensors import ONNX_DTYPES
from splitbus_gateway.transform import Calibrated, node_coder, wire_name
from splitbus_runtime.engine import Session, open_session
from splitbus_schemas.entropy import Coder

OPSET: Final = 13  # for models that use no default operator, and for none at all
IR_VERSION: Final = 8


class Ends:
    """The nodes of every codec for `tensors`, made when first asked for, and the coders of those calibrated."""

    def __init__(
        self,
        tensors: Sequence[TensorSpec],
        transforms: Mapping[str, Calibrated],
        opset: int | None = None,
        ir_version: int = IR_VERSION,
    ) -> None:
        self.coders = {wire_name(name): Coder(one.tables) for name, one in transforms.items()}
        self._tensors, self._opset, self._ir_version = tensors, opset or OPSET, ir_version
        self._nodes = {name: node_coder(one.transform) for name, one in transforms.items()}
        self._made: dict[str, tuple[set[str], Session | None, Session | None]] = {}

    def of(self, kind: str) -> tuple[set[str], Session | None, Session | None]:
        """The tensors that nodes of that kind leave alone, and what encodes and decodes the others."""
        if kind not in self._made:
            coded = [t for t in self._tensors if wire_tensors(t, kind, self._nodes) != (t,)]
            head = self._session(coded, kind, encode) if coded else None
            tail = self._session(coded, kind, decode) if coded else None
            plain = {t.name for t in self._tensors}.difference(t.name for t in coded)
            self._made[kind] = plain, head, tail
        return self._made[kind]

    def _session(
        self, tensors: Sequence[TensorSpec], kind: str, write: Callable[[TensorSpec, str, int, Transforms], Nodes]
    ) -> Session:
        wires = [wire for tensor in tensors for wire in wire_tensors(tensor, kind, self._nodes)]
        inputs, outputs = (tensors, wires) if write is encode else (wires, tensors)
        model = ModelProto(ir_version=self._ir_version, producer_name="splitbus")
        model.opset_import.add(domain="", version=self._opset)
        model.graph.name = "codec"
        for tensor in tensors:
            nodes = write(tensor, kind, self._opset, self._nodes)
            model.graph.node.extend(nodes.nodes)
            model.graph.initializer.extend(nodes.constants)
        model.graph.input.extend(map(_value, inputs))
        model.graph.output.extend(map(_value, outputs))
        return open_session(model.SerializeToString(), threads=1, what=f"codec {kind}")


def _value(spec: TensorSpec) -> ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, ONNX_DTYPES[spec.dtype], spec.shape)
