"""Codes the tensors of a cut into a file and back, without a model or a bus: by a codec's nodes, then its coder.

The two directions share nothing but the file and, for the transform codec, its calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from splitbus_gateway.ends import Ends
from splitbus_gateway.graph import TensorSpec, wire_tensors
from splitbus_gateway.transform import Calibrated, node_coder
from splitbus_gateway.walk import run_named
from splitbus_runtime.engine import Array
from splitbus_schemas.codecs import SINGLE, TRANSFORM, Codec
from splitbus_schemas.dtypes import DTYPES
from splitbus_schemas.errors import ConfigError, DecodeError, ModelError
from splitbus_schemas.limits import MAX_TENSOR_BYTES
from splitbus_schemas.packet import pack_tensor, unpack_tensor
from splitbus_schemas.pictures import is_picture
from splitbus_schemas.tensor_file import Source, TensorFile


def encode_tensors(values: Mapping[str, Array], codec: str, calibrated: Mapping[str, Calibrated]) -> TensorFile:
    """The tensors under a codec, as they would cross a cut.

    Raises ConfigError for a codec that is not ours, or that none of the tensors can take.
    """
    chosen = _codec(codec)
    for name, array in values.items():
        if array.dtype.name not in DTYPES:
            known = ", ".join(DTYPES)
            raise ConfigError(f"tensor {name} is of {array.dtype}, which no packet carries: give one of {known}")
    specs = [_spec(Source(name, array.dtype.name, array.shape)) for name, array in values.items()]
    own = _fitting(specs, calibrated) if chosen.nodes == TRANSFORM else {}
    _check_takes(chosen, specs, own, calibrated)
    ends = Ends(specs, own)
    plain, head, _ = ends.of(chosen.nodes or "raw")
    sent = {name: values[name] for name in values if name in plain} | (run_named(head, values) if head else {})
    coded = [pack_tensor(name, array, chosen.coding, coder=ends.coders.get(name)) for name, array in sent.items()]
    sources = tuple(Source(spec.name, spec.dtype, spec.sizes) for spec in specs)
    return TensorFile(codec, sources, tuple(coded))


def decode_tensors(file: TensorFile, calibrated: Mapping[str, Calibrated]) -> dict[str, Array]:
    """The tensors that a file stands for.

    Raises DecodeError for one that does not fit itself or was coded under another calibration, ConfigError when it
    needs a calibration that is not there.
    """
    chosen = _codec(file.codec)
    specs = [_spec(source) for source in file.sources]
    if sum(prod(dim or 1 for dim in spec.sizes) * DTYPES[spec.dtype].itemsize for spec in specs) > MAX_TENSOR_BYTES:
        raise DecodeError(f"the file's tensors have more than {MAX_TENSOR_BYTES} bytes together")
    own = _fitting(specs, calibrated) if chosen.nodes == TRANSFORM else {}
    nodes = {name: node_coder(one.transform) for name, one in own.items()}
    expected = [wire for spec in specs for wire in wire_tensors(spec, chosen.nodes or "raw", nodes)]
    found = {tensor.name: tensor for tensor in file.tensors}
    missing = [wire.name for wire in expected if wire.name not in found]
    if missing and chosen.nodes == TRANSFORM:
        raise ConfigError(f"the file has no {missing[0]}: it was coded under another calibration, give --calibration")
    for wire in expected:
        tensor = found.get(wire.name)
        if tensor is None or (tensor.dtype, tensor.shape) != (wire.dtype, wire.sizes):
            got = f"{tensor.dtype}{list(tensor.shape)}" if tensor else "nothing"
            raise DecodeError(f"the file holds {got} for {wire.name}, its codec {wire.dtype}{list(wire.sizes)}")
    ends = Ends(specs, own)
    came = {wire.name: unpack_tensor(found[wire.name], ends.coders.get(wire.name)) for wire in expected}
    try:
        plain, _, tail = ends.of(chosen.nodes or "raw")
    except ModelError as error:
        raise DecodeError(f"the file's tensors fit no codec: {error}") from error
    made = {name: came[name] for name in plain} | (run_named(tail, came) if tail else {})
    return {spec.name: made[spec.name] for spec in specs}


def needs_calibration(codec: str) -> bool:
    """Whether a codec's nodes and tables are found by calibration. Raises ConfigError for one that is not ours."""
    return _codec(codec).nodes == TRANSFORM


def _codec(name: str) -> Codec:
    if name not in SINGLE:
        raise ConfigError(f"codec {name} is not known: give one of {', '.join(SINGLE)}")
    return SINGLE[name]


def _spec(source: Source) -> TensorSpec:
    return TensorSpec(source.name, source.dtype, source.shape, source.shape)


def _fitting(specs: list[TensorSpec], calibrated: Mapping[str, Calibrated]) -> dict[str, Calibrated]:
    """The calibrated among the tensors. Raises ConfigError for one of another shape than it was calibrated for."""
    own = {}
    for spec in specs:
        one = calibrated.get(spec.name)
        if one is None:
            continue
        layout, transform = one.transform.layout, one.transform
        wanted = (len(transform.mean), *transform.weight.shape)
        axes = layout.order if len(spec.sizes) == len(layout.order) else (0,)
        if tuple(spec.sizes[axis] for axis in axes[1:]) != wanted:
            shape = ["batch", *(wanted[axis - 1] for axis in layout.inverse[1:])]
            raise ConfigError(
                f"{spec.name} has shape {list(spec.sizes)}, it was calibrated for {shape}: give that of the same cut"
            )
        own[spec.name] = one
    return own


def _check_takes(
    codec: Codec, specs: list[TensorSpec], own: Mapping[str, Calibrated], calibrated: Mapping[str, Calibrated]
) -> None:
    names = ", ".join(spec.name for spec in specs) or "nothing"
    if codec.nodes == TRANSFORM and not own:
        known = ", ".join(calibrated) or "none"
        raise ConfigError(f"{names} was not calibrated, the calibration has {known}: name the tensor with --tensor")
    if codec.pictures and not any(is_picture(spec.dtype, spec.sizes) for spec in specs):
        raise ConfigError(f"{names} is no picture: {codec.name} codes uint8 of [H, W, 3] or [1, H, W, 3]")
