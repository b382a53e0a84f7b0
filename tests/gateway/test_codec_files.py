"""Tensors of a cut into a file and back, under every codec; what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.transform.test_nodes import SHAPES, activations, answer

from splitbus_gateway.codec_files import decode_tensors, encode_tensors
from splitbus_gateway.transform import Calibrated, calibrate
from splitbus_runtime.engine import Array
from splitbus_schemas.codecs import SHIFTS, SINGLE
from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.tensor_file import Source, TensorFile, read_file, write_file

PLAIN = [name for name, codec in SINGLE.items() if not codec.pictures and name not in SHIFTS]
KIND = "nchw"


@pytest.fixture(scope="module")
def calibrated() -> dict[str, Calibrated]:
    return {kind: calibrate(activations(kind, 100), answer, probes=4) for kind in SHAPES}


def through(values: dict[str, Array], codec: str, known: dict[str, Calibrated]) -> dict[str, Array]:
    return decode_tensors(read_file(write_file(encode_tensors(values, codec, known))), known)


@pytest.mark.parametrize("codec", PLAIN)
@given(
    dtype=st.sampled_from(["float32", "float16", "float64", "int8", "uint8", "int64", "bool"]),
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    seed=st.integers(0, 99),
)
def test_every_codec_gives_back_what_it_promises(codec: str, dtype: str, shape: tuple[int, ...], seed: int) -> None:
    x = (np.random.default_rng(seed).standard_normal(shape) * 3).astype(dtype)
    found = through({"x": x, "y": x[..., None]}, codec, {})
    for name, given_ in (("x", x), ("y", x[..., None])):
        assert (found[name].dtype, found[name].shape) == (given_.dtype, given_.shape)
    allowed = {"f16": 2**-9, "q8": 2 / 255, "q4": 2 / 15}.get(codec, 0.0) if x.dtype.kind == "f" else 0.0
    wide, came = x.astype(np.float64), found["x"].astype(np.float64)
    assert np.abs(came - wide).max(initial=0) <= allowed * (np.ptp(wide) + 1 if wide.size else 0)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_transformed_tensors_come_back_the_smaller_the_worse(
    kind: str, batch: int, calibrated: dict[str, Calibrated]
) -> None:
    x = activations(kind, batch, seed=9)
    errors, sizes = [], []
    for codec in ("t1", "t6", "t12"):
        found = through({kind: x}, codec, calibrated)[kind]
        assert (found.shape, found.dtype) == (x.shape, x.dtype)
        errors.append(float(np.abs(found - x).mean()))
        sizes.append(len(write_file(encode_tensors({kind: x}, codec, calibrated))))
    assert errors == sorted(errors)
    assert 0 < errors[0] < 0.1 * float(np.abs(x).mean())
    assert sizes == sorted(sizes, reverse=True)


def test_a_file_of_another_calibration_is_refused(calibrated: dict[str, Calibrated]) -> None:
    file = encode_tensors({KIND: activations(KIND, 1)}, "t5", calibrated)
    other = {KIND: calibrate(activations(KIND, 100, seed=5), answer, probes=4)}
    with pytest.raises(DecodeError, match=r"coded with tables|its codec"):
        decode_tensors(file, other)
    with pytest.raises(ConfigError, match="another calibration"):
        decode_tensors(file, {})


def test_what_does_not_fit_the_calibration_says_how(calibrated: dict[str, Calibrated]) -> None:
    x = activations(KIND, 1)
    with pytest.raises(ConfigError, match="was not calibrated, the calibration has"):
        encode_tensors({"other": x}, "t5", calibrated)
    with pytest.raises(ConfigError, match=r"it was calibrated for \['batch'"):
        encode_tensors({KIND: x[:, 1:]}, "t5", calibrated)
    with pytest.raises(ConfigError, match="is no picture"):
        encode_tensors({KIND: x}, "jpeg75", calibrated)
    with pytest.raises(ConfigError, match="codec q5 is not known"):
        encode_tensors({KIND: x}, "q5", calibrated)
    with pytest.raises(ConfigError, match="complex64"):
        encode_tensors({KIND: x.astype(np.complex64)}, "raw", calibrated)


def test_a_file_that_does_not_fit_itself_is_refused() -> None:
    file = encode_tensors({"x": np.ones((1, 4, 16, 16), np.float32)}, "q8", {})
    shrunk = replace(file, sources=(Source("x", "float32", (1, 4, 16, 15)),))
    fewer = replace(file, tensors=file.tensors[:2])
    huge = replace(file, sources=(Source("x", "float64", (2**13, 2**13)),))
    for bad in (shrunk, fewer, huge):
        with pytest.raises(DecodeError):
            decode_tensors(read_file(write_file(bad)), {})


def test_a_picture_comes_back_as_the_camera_would_send_it() -> None:
    pixels = (np.mgrid[0:32, 0:48].sum(axis=0)[None, ..., None] * np.ones(3) * 2).astype(np.uint8)
    lossless = through({"frame": pixels}, "webpll", {})["frame"]
    np.testing.assert_array_equal(lossless, pixels)
    lossy = through({"frame": pixels}, "jpeg85", {})["frame"]
    assert 0 < np.abs(lossy.astype(int) - pixels).mean() < 4


def test_an_empty_file_gives_nothing() -> None:
    assert decode_tensors(TensorFile("raw", (), ()), {}) == {}
