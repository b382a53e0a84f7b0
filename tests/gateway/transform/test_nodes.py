"""The ONNX nodes do what the reference in numpy does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
import pytest
from onnx import NodeProto, TensorProto, checker, helper

from splitbus_gateway.graph.codec_nodes import Nodes, decode, encode, wire_tensors
from splitbus_gateway.graph.tensors import ONNX_DTYPES, TensorSpec
from splitbus_gateway.transform import SETTINGS, Transform, calibrate, node_coder
from splitbus_gateway.transform.quantise import analyse, synthesise
from splitbus_runtime.engine import Array
from splitbus_schemas.entropy import Coder, step_of

SHAPES = {
    "nchw": (12, 15, 17),
    "nchw_odd": (5, 29, 43),
    "nhwc": (15, 18, 12),
    "tokens": (50, 32),
    "channels_first": (24, 64),
    "flat": (256,),
}
CHANNEL_LAST = {"nhwc", "tokens"}


def activations(kind: str, count: int, seed: int = 0) -> Array:
    """Smooth over space, mixed over channels, as features are."""
    shape = SHAPES[kind]
    rng = np.random.default_rng(seed)
    last = kind in CHANNEL_LAST
    channels = shape[-1] if last else shape[0]
    space = shape[:-1] if last else shape[1:]
    values = rng.standard_normal((count, channels, *space))
    for axis in range(2, values.ndim):
        for _ in range(4):
            values = values + np.roll(values, 1, axis)
    if channels < 512:
        fixed = np.random.default_rng(7)
        mixing = fixed.standard_normal((channels, channels)) * np.exp(-np.arange(channels) / 4)
        values = np.moveaxis(np.tensordot(mixing, values, (1, 1)), 0, 1) + fixed.standard_normal(channels).reshape(
            -1, *(1,) * len(space)
        )
    return np.asarray(np.moveaxis(values, 1, -1) if last else values, np.float32)


def answer(values: Array) -> Array:
    """Some model's tail: all the values, the later ones weighing less."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    return np.asarray(np.tanh(flat * np.linspace(1, 0.2, flat.shape[1])))


def fitted(kind: str) -> Transform:
    return calibrate(activations(kind, 24), answer, probes=4).transform


def spec(kind: str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec("x", dtype, ("N", *SHAPES[kind]), (1, *SHAPES[kind]))


def rounded(coefficients: Array, shift: int) -> Array:
    """The nearest multiples of the step."""
    return np.asarray(np.rint(coefficients / step_of(shift)) * step_of(shift), np.float32)


def run(nodes: Nodes, inputs: dict[str, Array], output: str, dtype: str) -> Array:
    constants = list(nodes.constants)
    body: list[NodeProto] = nodes.nodes
    graph = helper.make_graph(
        body,
        "codec",
        [helper.make_tensor_value_info(n, ONNX_DTYPES[str(a.dtype)], a.shape) for n, a in inputs.items()],
        [helper.make_tensor_value_info(output, ONNX_DTYPES[dtype], [None] * next(iter(inputs.values())).ndim)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", nodes.opset)], ir_version=8)
    checker.check_model(model)
    assert all(constant.data_type != TensorProto.DOUBLE for constant in constants)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([output], inputs)[0])


@pytest.mark.parametrize("opset", [9, 13, 17])
@pytest.mark.parametrize("kind", SHAPES)
def test_nodes_equal_the_reference(kind: str, opset: int) -> None:
    transform, tensor = fitted(kind), spec(kind)
    coders = {"x": node_coder(transform)}
    (wire,) = wire_tensors(tensor, "t", coders)
    x = activations(kind, 3, seed=5)
    found = run(encode(tensor, "t", opset, coders), {"x": x}, wire.name, "float32")
    expected = analyse(x, transform)
    assert found.shape == expected.shape == (3, *wire.sizes[1:])
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.abs(expected).max()))
    back = run(decode(tensor, "t", opset, coders), {wire.name: rounded(expected, -6)}, "x", "float32")
    reference = synthesise(rounded(expected, -6), transform)
    np.testing.assert_allclose(back, reference, atol=2e-4 * float(np.abs(x).max()))


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "int8"])
def test_other_types_come_back_in_their_own(dtype: str) -> None:
    x, middle = activations("nchw", 24), 0
    if np.dtype(dtype).kind != "f":
        bounds = np.iinfo(dtype)
        middle = (bounds.min + bounds.max + 1) // 2
        x = np.clip(np.rint(x / x.std() * 20 + middle), bounds.min, bounds.max)
    x = x.astype(dtype)
    scale = float(x.astype(np.float64).std())
    found = calibrate(x, lambda values: answer((values.astype(np.float64) - middle) / scale), probes=4)
    transform, tensor = found.transform, spec("nchw", dtype)
    coders = {"x": node_coder(transform)}
    sent = run(encode(tensor, "t", 17, coders), {"x": x[:2]}, "x::t", "float32")
    back = run(decode(tensor, "t", 17, coders), {"x::t": rounded(sent, -8)}, "x", dtype)
    assert back.dtype == dtype
    wide = x[:2].astype(np.float64)
    assert np.sqrt(np.mean((back - wide) ** 2)) < 0.15 * wide.std()


def test_the_shift_alone_decides_the_strength() -> None:
    """A larger step gives a shorter frame and a larger error; the slices are the same."""
    found = calibrate(activations("nchw", 24), answer, probes=4)
    tensor, coders, coder = spec("nchw"), {"x": node_coder(found.transform)}, Coder(found.tables)
    x = activations("nchw", 2, seed=9)
    sent = run(encode(tensor, "t", 17, coders), {"x": x}, "x::t", "float32")
    sizes, errors = [], []
    for shift in SETTINGS:
        frame = coder.encode(sent, shift)
        assert frame is not None
        sizes.append(len(frame))
        back = run(decode(tensor, "t", 17, coders), {"x::t": coder.decode(frame, sent.shape)}, "x", "float32")
        errors.append(float(np.mean((back - x) ** 2)))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert errors[0] < 0.01 * float(x.var())
    assert sizes[-1] < sizes[0] / 5


def test_a_dynamic_batch_stays_dynamic() -> None:
    coders = {"x": node_coder(fitted("nchw"))}
    tensor = spec("nchw")
    assert wire_tensors(tensor, "t", coders)[0].shape[0] == "N"
    assert wire_tensors(replace(tensor, shape=(1, *SHAPES["nchw"])), "t", coders)[0].shape[0] == 1


def test_a_tensor_without_a_transform_is_sent_as_under_q8() -> None:
    tensor = spec("nchw")
    assert wire_tensors(tensor, "t") == wire_tensors(tensor, "q8")
    assert encode(tensor, "t", 17).nodes == encode(tensor, "q8", 17).nodes
    assert wire_tensors(spec("nchw", "int64"), "t") == (spec("nchw", "int64"),)
