"""Pictures as JPEG and WebP: what goes there comes back, and what is no such file is refused before it is decoded."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from splitbus_schemas.codecs import CODECS, CODINGS, coding_for, decode_bytes, encode_bytes, known_codecs
from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.packet import pack_tensor, unpack_tensor
from splitbus_schemas.packet_types import Tensor
from splitbus_schemas.pictures import is_picture

Pixels = NDArray[np.uint8]

PICTURE_CODINGS = [name for name, coding in CODINGS.items() if coding.picture]
LOSSY = [name for name in PICTURE_CODINGS if name != "webpll"]
shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def smooth(height: int, width: int, seed: int = 0) -> Pixels:
    """Gentle slopes, as most of a photograph is."""
    rows, columns = np.mgrid[0:height, 0:width]
    slopes = np.random.default_rng(seed).uniform(-1.5, 1.5, (2, 3))
    values = 128 + rows[..., None] * slopes[0] + columns[..., None] * slopes[1]
    pixels: Pixels = np.clip(values, 0, 255).astype(np.uint8)
    return pixels


def saved(pixels: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def decode(coding: str, data: bytes, height: int, width: int) -> Any:
    return decode_bytes(coding, data, height * width * 3, (1, height, width, 3))


# There and back -------------------------------------------------------------------------------------------------------


@given(shapes, st.booleans(), st.integers(0, 9), st.sampled_from(PICTURE_CODINGS))
@settings(deadline=None)  # Pillow is loaded at the first picture
def test_a_picture_comes_back_in_its_shape_and_nearly_as_it_was(
    size: tuple[int, int], batch: bool, seed: int, coding: str
) -> None:
    """WIRE-29"""
    pixels = smooth(*size, seed)
    array = pixels[None] if batch else pixels
    tensor = pack_tensor("x", array, coding)
    assert tensor.coding == coding
    back = unpack_tensor(tensor)
    assert (back.shape, back.dtype.name) == (array.shape, "uint8")
    difference = np.abs(back.astype(int) - array)
    if coding == "webpll":
        assert not difference.any()
    assert difference.mean() <= 16


def test_higher_qualities_are_larger_and_nearer() -> None:
    rng = np.random.default_rng(0)
    pixels = np.clip(smooth(96, 128) + rng.normal(0, 12, (96, 128, 3)), 0, 255).astype(np.uint8)
    for family in (["jpeg50", "jpeg75", "jpeg85", "jpeg95"], ["webp50", "webp75", "webp90", "webpll"]):
        tensors = [pack_tensor("x", pixels, coding) for coding in family]
        sizes = [len(tensor.data) for tensor in tensors]
        errors = [float(np.abs(unpack_tensor(tensor).astype(int) - pixels).mean()) for tensor in tensors]
        assert sizes == sorted(sizes)
        assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("coding", PICTURE_CODINGS)
def test_strides_are_honoured(coding: str) -> None:
    """A view that swaps the colours, as programs make of OpenCV's frames, is sent as it reads."""
    pixels = smooth(20, 24)
    expected = unpack_tensor(pack_tensor("x", np.ascontiguousarray(pixels[..., ::-1]), coding))
    assert np.array_equal(unpack_tensor(pack_tensor("x", pixels[..., ::-1], coding)), expected)


@pytest.mark.parametrize(
    ("dtype", "shape", "yes"),
    [
        ("uint8", (4, 5, 3), True),
        ("uint8", (1, 4, 5, 3), True),
        ("uint8", (16383, 1, 3), True),
        ("uint8", (16384, 1, 3), False),
        ("uint8", (2, 4, 5, 3), False),
        ("uint8", (1, 1, 4, 5, 3), False),
        ("uint8", (1, 3, 4, 5), False),
        ("uint8", (4, 5, 4), False),
        ("uint8", (0, 5, 3), False),
        ("uint8", (5, 3), False),
        ("uint8", (), False),
        ("int8", (4, 5, 3), False),
        ("float32", (1, 4, 5, 3), False),
    ],
)
def test_what_is_a_picture(dtype: str, shape: tuple[int, ...], yes: bool) -> None:
    """WIRE-29: anything else travels as zstd under such a coding, and so does what belongs to the answer."""
    assert is_picture(dtype, shape) is yes
    for coding in PICTURE_CODINGS:
        assert coding_for(coding, dtype, shape, final=False) == (coding if yes else "zstd")
        assert coding_for(coding, dtype, shape, final=True) == "zstd"
    assert coding_for("raw", dtype, shape, final=False) == "raw"


def test_a_tensor_that_is_no_picture_is_packed_losslessly() -> None:
    array = np.random.default_rng(0).standard_normal((1, 4, 5, 3)).astype(np.float32)
    tensor = pack_tensor("x", array, "jpeg50")
    assert tensor.coding == "zstd"
    assert np.array_equal(unpack_tensor(tensor), array)
    with pytest.raises(KeyError):
        pack_tensor("x", array, "jpeg")


# Files that are refused -----------------------------------------------------------------------------------------------

GREY, ALPHA = np.full((6, 8), 90, np.uint8), np.full((6, 8, 4), 90, np.uint8)
PLAIN = np.full((6, 8, 3), 90, np.uint8)


def resized(data: bytes, height: int, width: int) -> bytes:
    """A JPEG file that announces another size."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(k + struct.pack("<I", len(d)) + d + b"\0" * (len(d) % 2) for k, d in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


JPEG = saved(PLAIN, "JPEG", quality=85)
WEBP = saved(PLAIN, "WEBP", quality=90)
LOSSLESS = saved(PLAIN, "WEBP", lossless=True)
BAD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "nothing": ("jpeg85", lambda: b""),
    "markers alone": ("jpeg85", lambda: b"\xff\xd8\xff\xd9"),
    "another format": ("jpeg85", lambda: saved(PLAIN, "PNG")),
    "webp for jpeg": ("jpeg85", lambda: WEBP),
    "jpeg for webp": ("webp90", lambda: JPEG),
    "another size": ("jpeg85", lambda: saved(np.full((8, 6, 3), 90, np.uint8), "JPEG")),
    "another size, webp": ("webp90", lambda: saved(np.full((8, 6, 3), 90, np.uint8), "WEBP")),
    "another size, lossless webp": ("webpll", lambda: saved(np.full((8, 6, 3), 9, np.uint8), "WEBP", lossless=True)),
    "a lie about the size": ("jpeg85", lambda: resized(JPEG, 60000, 60000)),
    "grey": ("jpeg85", lambda: saved(GREY, "JPEG")),
    "cmyk": ("jpeg85", lambda: saved(Image.fromarray(PLAIN).convert("CMYK"), "JPEG")),
    "progressive": ("jpeg85", lambda: saved(PLAIN, "JPEG", progressive=True)),
    "metadata": ("jpeg85", lambda: saved(PLAIN, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")),
    "two frames": ("jpeg85", lambda: JPEG[:2] + JPEG[JPEG.index(b"\xff\xc0") :][:19] + JPEG[2:]),
    "bytes behind it": ("jpeg85", lambda: JPEG + b"\0"),
    "no scan": ("jpeg85", lambda: JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9"),
    "alpha": ("webp90", lambda: saved(ALPHA, "WEBP")),
    "alpha, lossless": ("webpll", lambda: saved(ALPHA, "WEBP", lossless=True)),
    "animated": (
        "webp90",
        lambda: saved(Image.fromarray(PLAIN), "WEBP", save_all=True, append_images=[Image.fromarray(PLAIN + 9)]),
    ),
    "metadata, webp": ("webp90", lambda: saved(PLAIN, "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")),
    "bytes behind it, webp": ("webp90", lambda: WEBP + b"\0\0"),
    "two chunks": ("webp90", lambda: riff((b"VP8 ", WEBP[20:]), (b"VP8 ", WEBP[20:]))),
    "an unknown chunk": ("webp90", lambda: riff((b"VP9 ", WEBP[20:]))),
    "an empty chunk": ("webp90", lambda: riff((b"VP8 ", b""))),
    "a header alone": ("webp90", lambda: riff((b"VP8 ", WEBP[20:30]))),
    "a header alone, lossless": ("webpll", lambda: riff((b"VP8L", LOSSLESS[20:25]))),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_not_just_the_picture_is_refused(name: str) -> None:
    """WIRE-29"""
    coding, make = BAD[name]
    with pytest.raises(DecodeError):
        decode(coding, make(), 6, 8)


def test_those_files_are_refused_for_what_is_wrong_with_them() -> None:
    for coding, data in (("jpeg85", JPEG), ("webp90", WEBP), ("webpll", LOSSLESS)):
        pixels = np.frombuffer(decode(coding, data, 6, 8), np.uint8)
        assert np.abs(pixels.astype(int) - 90).max() <= 2
    assert riff((b"VP8 ", WEBP[20 : 20 + int.from_bytes(WEBP[16:20], "little")])) == WEBP


@pytest.mark.parametrize(("coding", "data"), [("jpeg85", JPEG), ("webp90", WEBP), ("webpll", LOSSLESS)])
def test_a_file_cut_off_anywhere_is_refused(coding: str, data: bytes) -> None:
    """WIRE-29"""
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode(coding, data[:end], 6, 8)


def test_no_room_is_made_for_what_a_header_announces(monkeypatch: pytest.MonkeyPatch) -> None:
    """WIRE-4: libwebp makes room for the announced picture as soon as it is given the file, so it must not get it."""
    for module in ("PIL.JpegImagePlugin", "PIL.WebPImagePlugin"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    header = b"\x2f" + struct.pack("<I", 16382 | 16382 << 14)
    for coding, data in (("webpll", riff((b"VP8L", header))), ("jpeg85", resized(JPEG, 65535, 65535))):
        with pytest.raises(DecodeError, match=r"tensor is \d+x\d+, its shape needs 8x6"):
            decode(coding, data, 6, 8)


@given(st.sampled_from([("jpeg85", JPEG), ("webp90", WEBP), ("webpll", LOSSLESS)]), st.data())
@settings(deadline=None)
def test_a_damaged_file_is_refused_or_has_the_right_size(which: tuple[str, bytes], data: st.DataObject) -> None:
    """WIRE-2, WIRE-29"""
    coding, file = which
    damaged = bytearray(file)
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    ):
        damaged[position] = value
    with contextlib.suppress(DecodeError):
        assert len(decode(coding, bytes(damaged), 6, 8)) == 6 * 8 * 3


@given(st.sampled_from(PICTURE_CODINGS), st.sampled_from([b"", JPEG[:200], WEBP[:20], LOSSLESS[:20]]), st.binary())
@settings(deadline=None)
def test_random_bytes_are_refused(coding: str, head: bytes, rest: bytes) -> None:
    """WIRE-2"""
    for data in (head + rest, head + rest + b"\xff\xd9"):
        with contextlib.suppress(DecodeError):
            assert len(decode(coding, data, 6, 8)) == 6 * 8 * 3


@pytest.mark.parametrize(
    ("dtype", "shape"), [("int8", (6, 8, 3)), ("uint8", (6, 24)), ("uint8", (3, 6, 8)), ("uint8", (0, 8, 3))]
)
def test_a_tensor_that_is_no_picture_cannot_be_coded_as_one(dtype: str, shape: tuple[int, ...]) -> None:
    """WIRE-29"""
    with pytest.raises(DecodeError, match="is no picture"):
        unpack_tensor(Tensor("x", dtype, shape, "jpeg85", JPEG))


# Without Pillow -------------------------------------------------------------------------------------------------------


def test_without_pillow_nothing_is_offered_and_everything_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_codecs() == list(CODECS)
    find = importlib.util.find_spec

    def missing(name: str, package: str | None = None) -> Any:
        if name.startswith("PIL."):
            raise ModuleNotFoundError(name)
        return find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    assert known_codecs() == [name for name, codec in CODECS.items() if not codec.pictures]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "PIL._webp" else find(name))
    assert [name for name in CODECS if name not in known_codecs()] == ["webp90", "webp75", "webp50", "webpll"]
    for module in ("PIL", "PIL.JpegImagePlugin", "PIL.WebPImagePlugin"):
        monkeypatch.setitem(sys.modules, module, None)
    for coding, data in (("jpeg85", JPEG), ("webpll", LOSSLESS)):
        with pytest.raises(ConfigError, match=r"needs Pillow.*pip install 'splitbus\[images\]'"):
            encode_bytes(coding, PLAIN.tobytes(), PLAIN.shape)
        with pytest.raises(DecodeError, match="without Pillow"):
            decode(coding, data, 6, 8)
