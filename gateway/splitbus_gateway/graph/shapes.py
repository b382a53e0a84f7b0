"""Types and shapes of all tensors that could cross a cut: inferred, and where inference does not know, from one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto, shape_inference

from splitbus_gateway.graph.feeds import ones_feed
from splitbus_gateway.graph.settled import settled
from splitbus_gateway.graph.tensors import WIRE_DTYPES, Dim, TensorSpec
from splitbus_gateway.graph.weights import Weight
from splitbus_runtime.engine import Array, open_session
from splitbus_schemas.errors import ModelError

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Types:
    """What is known of each tensor: its spec, or (`odd`) the reason why it cannot travel."""

    specs: Mapping[str, TensorSpec]
    odd: Mapping[str, str]


def input_types(proto: ModelProto, shapes: Shapes, what: str) -> Types:
    """The graph's inputs, symbolic sizes being 1 unless `shapes` says otherwise.

    Raises ModelError when an input declares no shape and none is given, or the one given does not fit.
    """
    unknown = set(shapes) - {value.name for value in proto.graph.input}
    if unknown:
        raise ModelError(f"{what} has no input {min(unknown)}: it has {', '.join(v.name for v in proto.graph.input)}")
    bound = _bindings(proto.graph.input, shapes, what)
    specs: dict[str, TensorSpec] = {}
    odd: dict[str, str] = {}
    for value in proto.graph.input:
        if reason := _oddity(value.type):
            odd[value.name] = reason
            continue
        shape = _declared(value.type)
        given = shapes.get(value.name)
        if shape is None and given is None:
            raise ModelError(f"input {value.name} of {what} declares no shape: give one")
        shape = (None,) * len(given or ()) if shape is None else shape
        sizes = (dim if isinstance(dim, int) else bound.get(dim, 1) for dim in shape)
        dtype = WIRE_DTYPES[value.type.tensor_type.elem_type]
        specs[value.name] = TensorSpec(value.name, dtype, shape, tuple(sizes if given is None else given))
    return Types(specs, odd)


def tensor_types(
    proto: ModelProto, names: Iterable[str], inputs: Types, weights: Mapping[str, Weight], feed: Mapping[str, Array]
) -> Types:
    """What is known of the tensors `names` and of the inputs; `feed` is for the run, ones where it names no input."""
    declared = _infer(proto, {})
    sized = _infer(proto, {name: spec.sizes for name, spec in inputs.specs.items()})
    specs = dict(inputs.specs)
    odd = dict(inputs.odd)
    missing: list[str] = []
    for name in names:
        kind = sized.get(name)
        if kind is None or kind.WhichOneof("value") is None:
            missing.append(name)
        elif reason := _oddity(kind):
            odd[name] = reason
        elif (sizes := _sizes(kind)) is None:
            missing.append(name)
        else:
            shape = _declared(declared.get(name, kind)) or (None,) * len(sizes)
            dtype = WIRE_DTYPES[kind.tensor_type.elem_type]
            specs[name] = TensorSpec(name, dtype, shape if len(shape) == len(sizes) else (None,) * len(sizes), sizes)
    if missing:
        found = _run(proto, missing, inputs, weights, feed)
        specs.update(found.specs)
        odd.update(found.odd)
    return Types(settled(proto, specs, list(inputs.specs.values()), weights), odd)


def _bindings(values: Iterable[ValueInfoProto], shapes: Shapes, what: str) -> dict[Dim, int]:
    """The symbols' sizes that the given shapes imply."""
    bound: dict[Dim, int] = {}
    for value in values:
        given = shapes.get(value.name)
        declared = _declared(value.type)
        if given is None or declared is None:
            continue
        bound.update((dim, size) for dim, size in zip(declared, given, strict=False) if isinstance(dim, str))
        wrong = any(isinstance(d, int) and d != size for d, size in zip(declared, given, strict=False))
        if len(declared) != len(given) or wrong:
            raise ModelError(f"input {value.name} of {what} has shape {list(declared)}, {list(given)} does not fit it")
    return bound


def _infer(proto: ModelProto, sizes: Mapping[str, tuple[int, ...]]) -> dict[str, TypeProto]:
    """Onnx's inference, from the inputs alone: what files declare of inner tensors is often stale."""
    model = ModelProto()
    model.CopyFrom(proto)
    del model.graph.value_info[:]
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for value in model.graph.input:
        if value.name in sizes:
            _set_shape(value.type, sizes[value.name])
    try:
        graph = shape_inference.infer_shapes(model, strict_mode=False, data_prop=True).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    return {value.name: value.type for value in (*graph.value_info, *graph.input, *graph.output)}


def _run(
    proto: ModelProto, names: list[str], inputs: Types, weights: Mapping[str, Weight], feed: Mapping[str, Array]
) -> Types:
    """Run the model once with the tensors `names` as its outputs."""
    model = ModelProto()
    model.CopyFrom(proto)
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in names)
    odd: dict[str, str] = {}
    try:
        arrays = {name: weight.array() for name, weight in weights.items()}
        session = open_session(model.SerializeToString(), weights=arrays, optimise=False, what="the model")
        known = {info.name: info for info in session.outputs}
        odd = {name: _plain(kind) for name, kind in _raw_types(session.inner) if not known[name].dtype}
        wanted = [name for name in names if name not in odd]
        values = session.run({**ones_feed(inputs.specs.values()), **feed}, wanted) if wanted else []
    except ModelError as error:
        reason = f"has a size that could not be found ({error}): give input shapes, or an input"
        return Types({}, dict.fromkeys(names, reason) | odd)
    specs: dict[str, TensorSpec] = {}
    for name, value in zip(wanted, values, strict=True):
        shape = known[name].shape if len(known[name].shape) == value.ndim else (None,) * value.ndim
        specs[name] = TensorSpec(name, known[name].dtype, shape, value.shape)
    return Types(specs, odd)


def _raw_types(inner: Any) -> Iterator[tuple[str, str]]:
    for info in inner.get_outputs():
        yield info.name, info.type


def _plain(kind: str) -> str:
    return f"is of type {kind}, which packets do not carry"


def _oddity(kind: TypeProto) -> str:
    """Why a value of this type cannot travel, or nothing."""
    which = kind.WhichOneof("value")
    if which != "tensor_type":
        return _plain(str(which).removesuffix("_type"))
    if kind.tensor_type.elem_type not in WIRE_DTYPES:
        return _plain(_dtype_name(kind))
    return ""


def _dtype_name(kind: TypeProto) -> str:
    return str(TensorProto.DataType.Name(kind.tensor_type.elem_type)).lower()


def _declared(kind: TypeProto) -> tuple[Dim, ...] | None:
    if not kind.tensor_type.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in kind.tensor_type.shape.dim)


def _dim(dim: Any) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return dim.dim_param or None


def _sizes(kind: TypeProto) -> tuple[int, ...] | None:
    shape = _declared(kind)
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        return None
    return tuple(dim for dim in shape if isinstance(dim, int))


def _set_shape(kind: TypeProto, sizes: Iterable[int]) -> None:
    kind.tensor_type.ClearField("shape")
    kind.tensor_type.shape.SetInParent()
    for size in sizes:
        kind.tensor_type.shape.dim.add(dim_value=size)
