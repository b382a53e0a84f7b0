"""What calibration finds: layouts, orthonormal bases, weights, tables; and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.transform.test_nodes import CHANNEL_LAST, SHAPES, activations, answer

from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_gateway.transform import MIN_SAMPLES, SETTINGS, calibrate, objection, rebuilt
from splitbus_gateway.transform.basis import MAX_BLOCK, block_sizes, dct_matrix, frequencies, weighted_klt
from splitbus_gateway.transform.calibrate import probe_rows
from splitbus_gateway.transform.layout import MAX_LENGTH, find_layout
from splitbus_gateway.transform.quantise import analyse
from splitbus_gateway.transform.sensitivity import channel_weight
from splitbus_runtime.engine import Array
from splitbus_schemas.entropy import Coder, step_of
from splitbus_schemas.entropy_tables import MAX_TABLES, read_tables
from splitbus_schemas.errors import ModelError


def spec(dtype: str, *shape: int | str | None) -> TensorSpec:
    return TensorSpec("x", dtype, shape, tuple(dim if isinstance(dim, int) else 1 for dim in shape))


@given(st.integers(1, 100))
def test_blocks_fill_a_length_and_their_dct_is_orthonormal(length: int) -> None:
    sizes = block_sizes(length)
    assert sum(sizes) == length
    assert max(sizes) <= MAX_BLOCK
    assert max(sizes) - min(sizes) <= 1
    matrix = dct_matrix(length)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(length), atol=1e-12)
    assert frequencies(length).shape == (length,)
    np.testing.assert_allclose((matrix @ np.ones(length))[frequencies(length) > 0], 0, atol=1e-12)


@given(st.integers(2, 12), st.integers(0, 2**31))
def test_the_klt_decorrelates_and_makes_errors_cost_alike(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    covariance, weight = (a @ a.T + 0.1 * np.eye(count) for a in rng.standard_normal((2, count, count)))
    forward, inverse = weighted_klt(covariance, weight)
    np.testing.assert_allclose(forward @ inverse, np.eye(count), atol=1e-6)
    spread = forward @ covariance @ forward.T
    np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-6 * np.trace(spread))
    assert (np.diff(np.diag(spread)) <= 1e-9 * np.trace(spread)).all()
    np.testing.assert_allclose(inverse.T @ weight @ inverse, np.eye(count), atol=1e-6)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_channels_are_found_on_either_side(kind: str) -> None:
    layout = find_layout(activations(kind, 24))
    rank = len(SHAPES[kind]) + 1
    assert layout.channel == (rank - 1 if kind in CHANNEL_LAST else 1)
    assert sorted((0, layout.channel, *layout.space)) == list(range(rank))
    assert all(layout.smooth)
    x = activations(kind, 2)
    np.testing.assert_array_equal(x.transpose(layout.order).transpose(layout.inverse), x)


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (spec("float32", 1, 16, 14, 14), ""),
        (spec("float16", "N", 16, 14, 14), ""),
        (spec("uint8", 1, 16, 14, 14), ""),
        (spec("float32", 1, 50, 64), ""),
        (spec("int64", 1, 16, 14, 14), "has type int64"),
        (spec("bool", 1, 16, 14, 14), "has type bool"),
        (spec("float32", 1, 4, 4, 8, 8, 8), "6 dimensions"),
        (spec("float32"), "0 dimensions"),
        (spec("float32", 1, 16, None, 14), "symbolic shape"),
        (spec("float32", 1, 10, 10), "100 elements only"),
        (spec("float32", 1, 1280), "too many channels"),
        (spec("float32", 1, 1000, 4, 1000), "too many channels"),
    ],
)
def test_what_does_not_fit_says_why(tensor: TensorSpec, why: str) -> None:
    assert why in objection(tensor)
    assert bool(why) == bool(objection(tensor))


@pytest.mark.parametrize(("length", "smooth"), [(MAX_LENGTH, True), (3600, False)])
def test_an_axis_too_long_for_a_matrix_is_not_transformed(length: int, smooth: bool) -> None:
    """Detectors have thousands of boxes side by side, four figures each: a matrix for them would take 52 MB."""
    rng = np.random.default_rng(0)
    waves = np.cumsum(rng.normal(size=(MIN_SAMPLES, length, 4)), axis=1) * [1, -3, 5, -7]
    layout = find_layout(waves.astype(np.float32))
    assert (layout.channel, layout.smooth) == (2, (smooth,))


def test_the_answers_reaction_is_found_channel_by_channel() -> None:
    """A linear answer that takes channel 1 three times as strongly reacts nine times as much; to channel 2, never."""
    gains = np.array([1.0, 3.0, 0.0, 1.0])
    x = np.random.default_rng(0).standard_normal((6, 4, 8, 8)).astype(np.float32)
    found = np.diag(channel_weight(x, 1, lambda values: (values * gains[:, None, None]).reshape(len(values), -1)))
    assert found[1] / found[0] == pytest.approx(9, rel=0.05)
    assert found[3] / found[0] == pytest.approx(1, rel=0.05)
    assert 0 < found[2] < found[0] / 100


@pytest.mark.parametrize("kind", SHAPES)
def test_held_out_activations_come_back_smaller_than_four_bits_and_nearer(kind: str) -> None:
    found = calibrate(activations(kind, 200), answer, probes=4)
    x = activations(kind, 8, seed=99)
    coder, smaller = Coder(found.tables), []
    codes = np.rint((x - x.min()) / (x.max() - x.min()) * 15)
    four_bits = float(np.sqrt(np.mean((codes / 15 * (x.max() - x.min()) + x.min() - x) ** 2)))
    for shift in SETTINGS:
        frame = coder.encode(analyse(x, found.transform), shift)
        assert frame is not None
        error = float(np.sqrt(np.mean((rebuilt(x, found, shift) - x) ** 2)))
        smaller.append(error < four_bits and len(frame) < x.size / 2)
    assert any(smaller)


def test_tables_serve_every_strength_and_stand_in_a_blob() -> None:
    found = calibrate(activations("nchw", 24), answer, probes=4)
    assert found.tables.shape == found.transform.shape
    assert len(found.tables.frequencies) <= MAX_TABLES
    assert read_tables(found.tables.blob).id == found.tables.id
    assert len(found.tables.blob) < 16_000


def test_channels_that_never_change_cost_nothing() -> None:
    x = activations("nchw", 24)
    x[:, 3] = 7.0
    x[:, 5:9] = 0.0
    found = calibrate(x, answer, probes=4)
    assert found.transform.shape[0] <= 7
    np.testing.assert_allclose(rebuilt(x, found, -24)[:, 3], 7.0, atol=0.5)
    np.testing.assert_allclose(rebuilt(x, found, -24), x, atol=0.1 * float(x.std()))


@pytest.mark.parametrize("constant", [0.0, 1.0, np.nan])
def test_an_answer_that_does_not_depend_on_the_tensor_weighs_all_alike(constant: float) -> None:
    x = activations("nchw", 24)
    found = calibrate(x, lambda values: np.full((len(values), 3), constant), probes=4)
    error = rebuilt(x, found, -16) - x
    assert float(np.sqrt(np.mean(error**2))) < step_of(-16) * float(x.std())


def too_few(x: Array) -> Array:
    return x[: MIN_SAMPLES - 1]


def not_finite(x: Array) -> Array:
    x[3, 1, 2, 2] = np.nan
    return x


def infinite(x: Array) -> Array:
    x[0] = np.inf
    return x


def constant(x: Array) -> Array:
    return np.full_like(x, 3.0)


@pytest.mark.parametrize(
    ("change", "why"),
    [(too_few, "too few"), (not_finite, "not finite"), (infinite, "not finite"), (constant, "all the same")],
)
def test_bad_samples_are_a_model_error(change: object, why: str) -> None:
    assert callable(change)
    with pytest.raises(ModelError, match=why):
        calibrate(change(activations("nchw", 24)), answer, probes=4)


@given(st.integers(1, 500), st.integers(1, 20))
def test_probes_are_spread_over_the_samples(count: int, probes: int) -> None:
    rows = probe_rows(count, probes)
    assert len(rows) == min(count, probes) == len(set(rows))
    assert 0 <= min(rows) <= max(rows) < count
