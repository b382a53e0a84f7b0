from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto, helper
from tests.models import OPSETS

from splitbus_gateway.graph.codec_nodes import CODECS, MIN_ELEMENTS, decode, encode, wire_tensors
from splitbus_gateway.graph.tensors import ONNX_DTYPES, TensorSpec
from splitbus_runtime.engine import Array, open_session

LEVELS = {"q8": 255, "q4": 15}
FLOATS = ["float16", "float32", "float64"]


def spec(*sizes: int, dtype: str = "float32", symbolic: tuple[int, ...] = ()) -> TensorSpec:
    shape = tuple(f"d{axis}" if axis in symbolic else size for axis, size in enumerate(sizes))
    return TensorSpec("x", dtype, shape, sizes)


def codec_model(tensor: TensorSpec, codec: str, opset: int, *, back: bool) -> ModelProto:
    nodes = (decode if back else encode)(tensor, codec, opset)

    def infos(specs: tuple[TensorSpec, ...]) -> list[ValueInfoProto]:
        return [helper.make_tensor_value_info(s.name, ONNX_DTYPES[s.dtype], s.shape) for s in specs]

    ends = [infos((tensor,)), infos(wire_tensors(tensor, codec))]
    inputs, outputs = ends[::-1] if back else ends
    graph = helper.make_graph(nodes.nodes, "codec", inputs, outputs, nodes.constants)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=max(4, helper.find_min_ir_version_for(opsets)))


def there_and_back(x: Array, tensor: TensorSpec, codec: str, opset: int = 17) -> tuple[dict[str, Array], Array]:
    """The wire tensors and what becomes of x."""
    head = open_session(codec_model(tensor, codec, opset, back=False).SerializeToString(), threads=1)
    tail = open_session(codec_model(tensor, codec, opset, back=True).SerializeToString(), threads=1)
    wire = dict(zip((info.name for info in head.outputs), head.run({"x": x}), strict=True))
    return wire, tail.run(wire)[0]


def bound(x: Array, wire: dict[str, Array], codec: str) -> NDArray[np.float64]:
    """Half a step, and what rounding in float32 (and in x's own type) adds: a few units in the last place."""
    lo, step = (wire[f"x::{codec}.{part}"].astype(np.float64) for part in ("lo", "step"))
    largest = np.abs(lo) + LEVELS[codec] * step
    rounding = 4 * np.finfo(np.float32).eps * largest
    if x.dtype == np.float16:
        rounding = rounding + np.finfo(np.float16).eps * largest + float(np.finfo(np.float16).smallest_subnormal)
    return step / 2 + rounding


SIZES = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 33)),
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.integers(2, 9)),
    st.tuples(st.integers(1, 5), st.integers(1, 300)),
    st.tuples(st.integers(1, 600)),
).filter(lambda sizes: np.prod(sizes) >= MIN_ELEMENTS)


@settings(max_examples=120)
@given(
    sizes=SIZES,
    codec=st.sampled_from(["q8", "q4"]),
    dtype=st.sampled_from(FLOATS),
    opset=st.sampled_from(OPSETS),
    scale=st.sampled_from([1e-6, 0.1, 1.0, 300.0]),
    offset=st.sampled_from([0.0, -3.0, 1000.0]),
    symbolic=st.sets(st.integers(0, 4)),
    seed=st.integers(0, 2**16),
)
@example((1, 7, 7, 7), "q4", "float32", 9, 1.0, 0.0, {0}, 0)
@example((2, 5, 40, 1), "q4", "float32", 18, 1.0, 0.0, {0, 1, 2, 3}, 0)
def test_quantised_within_half_a_step(
    sizes: tuple[int, ...],
    codec: str,
    dtype: str,
    opset: int,
    scale: float,
    offset: float,
    symbolic: set[int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(sizes) * scale + offset).astype(dtype)
    tensor = spec(*sizes, dtype=dtype, symbolic=tuple(symbolic))
    wire, back = there_and_back(x, tensor, codec, opset)
    assert (back.dtype, back.shape) == (x.dtype, x.shape)
    assert [(wire[w.name].dtype.name, wire[w.name].shape) for w in wire_tensors(tensor, codec)] == [
        (w.dtype, w.sizes) for w in wire_tensors(tensor, codec)
    ]
    assert (np.abs(back.astype(np.float64) - x.astype(np.float64)) <= bound(x, wire, codec)).all()


@pytest.mark.parametrize("codec", ["q8", "q4"])
@pytest.mark.parametrize("number", [0.0, 5.5, -1e30, 1e-38])
def test_constant_channels_come_back_as_they_are(codec: str, number: float) -> None:
    x = np.full((1, 4, 10, 10), number, np.float32)
    x[0, 1] = np.linspace(-1, 1, 100).reshape(10, 10)
    _, back = there_and_back(x, spec(*x.shape), codec)
    assert np.isfinite(back).all()
    assert np.array_equal(back[0, [0, 2, 3]], x[0, [0, 2, 3]])


@pytest.mark.parametrize("codec", ["q8", "q4"])
def test_channels_and_samples_do_not_disturb_one_another(codec: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    x[1, 2] *= 1e6
    _, back = there_and_back(x, spec(*x.shape), codec)
    assert np.abs(back - x)[0].max() < 0.5
    assert np.abs(back - x)[1, :2].max() < 0.5


def test_q4_halves_q8() -> None:
    tensor = spec(1, 40, 28, 28)
    q8, q4 = (wire_tensors(tensor, codec)[0] for codec in ("q8", "q4"))
    assert (tensor.nbytes, q8.nbytes, q4.nbytes) == (125440, 31360, 15680)


def test_q4_prefers_an_even_axis_and_spares_the_batch() -> None:
    assert wire_tensors(spec(2, 7, 8, 9), "q4")[0].sizes == (2, 7, 4, 9)
    assert wire_tensors(spec(2, 7, 9, 9), "q4")[0].sizes == (2, 4, 9, 9)
    assert wire_tensors(spec(2, 8, 8, 9, symbolic=(0, 1, 2, 3)), "q4")[0].sizes == (2, 8, 8, 9)


@pytest.mark.parametrize("opset", [9, 17, 23])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_f16_rounds_and_saturates(dtype: str, opset: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 300)).astype(dtype)
    x[0, :3] = [1e6, -1e6, 65504.0]
    wire, back = there_and_back(x, spec(1, 300, dtype=dtype), "f16", opset)
    assert wire["x::f16"].dtype == np.float16
    assert back[0, :3].tolist() == [65504.0, -65504.0, 65504.0]
    assert np.array_equal(back[0, 3:], x[0, 3:].astype(np.float16).astype(dtype))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "tensor", [spec(1, MIN_ELEMENTS - 1), spec(1, 1000, dtype="int64"), spec(1, 1000, dtype="uint8")]
)
def test_small_and_integer_tensors_travel_as_they_are(codec: str, tensor: TensorSpec) -> None:
    assert wire_tensors(tensor, codec) == (tensor,)
    assert encode(tensor, codec, 17).nodes == decode(tensor, codec, 17).nodes == []


def test_float16_needs_no_f16() -> None:
    tensor = spec(1, 1000, dtype="float16")
    assert wire_tensors(tensor, "f16") == (tensor,)
