"""Codecs at a cut. Each is two halves: nodes inside the slices (gateway), and a coding of the bytes (here)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from splitbus_schemas.errors import DecodeError
from splitbus_schemas.pictures import Format, can_code, decode_picture, encode_picture, is_picture
from splitbus_schemas.zstd import compress, decompress

TRANSFORM: Final = "t"
"""The nodes that all strengths of the transform codec share: coefficients cross, and the coding rounds them."""

SHIFTS: Final = {
    f"t{number}": shift for number, shift in enumerate((-24, -20, -16, -14, -12, -10, -8, -6, -4, -2, 0, 2), start=1)
}
"""The strengths of the transform codec, safest first: their steps in quarter octaves, see `entropy`."""

FINER: Final = 4
"""A frame in doubt is sent again so many strengths finer: four times the resolution, as measured (DECISIONS 74)."""

TWICE: Final = {f"{first}+{again}": (first, again) for first, again in zip(list(SHIFTS)[FINER:], SHIFTS, strict=False)}
"""The codecs that send in one strength, and frames in doubt again in another."""

PICTURES: Final[dict[str, tuple[Format, int]]] = {
    **{f"jpeg{quality}": ("jpeg", quality) for quality in (95, 85, 75, 50)},
    **{f"webp{quality}": ("webp", quality) for quality in (90, 75, 50)},
    "webpll": ("webp", 0),
}
"""The codecs of pictures: format and quality, 0 for lossless."""


@dataclass(frozen=True)
class Codec:
    """A named way to carry the tensors of a cut."""

    name: str
    nodes: str
    """Which ONNX nodes the slices hold around the cut: "" for none, else f16, q8, q4 or TRANSFORM."""
    coding: str
    """How the bytes of the wire tensors are coded: one of CODINGS."""
    lossless: bool
    again: str = ""
    """The codec, with the same nodes, in which a frame is sent again whose answer is in doubt; "" for never."""

    @property
    def pictures(self) -> bool:
        """Whether it is for pictures alone."""
        return CODINGS[self.coding].picture is not None


CODECS: Final = {
    codec.name: codec
    for codec in (
        Codec("raw", nodes="", coding="raw", lossless=True),
        Codec("zstd", nodes="", coding="zstd", lossless=True),
        Codec("f16", nodes="f16", coding="zstd", lossless=False),
        Codec("q8", nodes="q8", coding="zstd", lossless=False),
        Codec("q4", nodes="q4", coding="zstd", lossless=False),
        *(Codec(name, nodes=TRANSFORM, coding=name, lossless=False) for name in SHIFTS),
        *(Codec(name, nodes=TRANSFORM, coding=first, lossless=False, again=again)
          for name, (first, again) in TWICE.items()),
        *(Codec(name, nodes="", coding=name, lossless=not quality) for name, (_, quality) in PICTURES.items()),
    )
}  # fmt: skip

SINGLE: Final = {name: codec for name, codec in CODECS.items() if not codec.again}
"""Those that send every frame once: what there is to encode and decode."""

FAMILIES: Final = (
    ("f16", "q8", "q4"),
    tuple(SHIFTS),
    tuple(TWICE),
    *(tuple(name for name, (kind, quality) in PICTURES.items() if kind == picture and quality)
      for picture in ("jpeg", "webp")),
)  # fmt: skip
"""Lossy codecs of one kind, each keeping less than the one before."""


def no_safer(name: str) -> tuple[str, ...]:
    """The codec and those of its family that keep less: what is not true of it is not true of them."""
    if name in TWICE:
        return (*_rest_of_family(name), *_rest_of_family(CODECS[name].coding))
    return _rest_of_family(name)


def _rest_of_family(name: str) -> tuple[str, ...]:
    family = next((family for family in FAMILIES if name in family), (name,))
    return family[family.index(name) :]


def _raw(data: bytes | memoryview) -> bytes | memoryview:
    return data


def _unraw(data: bytes | memoryview, size: int) -> bytes | memoryview:
    if len(data) != size:
        raise DecodeError(f"raw tensor has {len(data)} bytes, its shape needs {size}")
    return data


Bytes: TypeAlias = bytes | memoryview
Shape: TypeAlias = Sequence[int]


@dataclass(frozen=True)
class Coding:
    """A named way to code a tensor's bytes. `encode` takes bytes and shape, `decode` bytes, their decoded number and
    shape. `picture` is the format of one that takes pictures alone: see `coding_for`. `shift` is the strength of one
    that takes coefficients alone, with tables that both ends hold: see `entropy`; these two then refuse it.
    """

    encode: Callable[[Bytes, Shape], Bytes]
    decode: Callable[[Bytes, int, Shape], Bytes]
    picture: Format | None = None
    shift: int | None = None


def _no_tables(*_: object) -> Bytes:
    raise DecodeError("coefficients came for which the slice names no tables")


def _picture(picture: Format, quality: int) -> Coding:
    return Coding(
        partial(encode_picture, picture, quality=quality),
        lambda data, _, shape: decode_picture(picture, data, shape),
        picture,
    )


CODINGS: Final = {
    "raw": Coding(lambda data, _: _raw(data), lambda data, size, _: _unraw(data, size)),
    "zstd": Coding(lambda data, _: compress(data), lambda data, size, _: decompress(data, size)),
    **{name: Coding(_no_tables, _no_tables, shift=shift) for name, shift in SHIFTS.items()},
    **{name: _picture(*how) for name, how in PICTURES.items()},
}


def known_codecs() -> list[str]:
    """The codecs that this program can encode and decode: without Pillow, none for pictures."""
    formats = {coding.picture for coding in CODINGS.values() if coding.picture}
    able = {None, *(picture for picture in formats if can_code(picture))}
    return [name for name, codec in CODECS.items() if CODINGS[codec.coding].picture in able]


def coding_for(coding: str, dtype: str, shape: Shape, *, final: bool) -> str:
    """What a tensor without tables is coded in where `coding` is asked for: a picture coding is for pictures, never for
    an answer, and one for coefficients for none.

    KeyError for a coding that is not ours.
    """
    asked = CODINGS[coding]
    fits = asked.shift is None and (asked.picture is None or (is_picture(dtype, shape) and not final))
    return coding if fits else "zstd"


def encode_bytes(coding: str, data: Bytes, shape: Shape = ()) -> Bytes:
    """`data` in the named coding; KeyError for a coding that is not ours, a program's mistake.

    Pictures need their shape, and Pillow: without it, ConfigError.
    """
    return CODINGS[coding].encode(data, shape)


def decode_bytes(coding: str, data: Bytes, size: int, shape: Shape = ()) -> Bytes:
    """Exactly `size` bytes from `data`, for pictures those of a uint8 tensor of `shape`.

    Raises DecodeError; allocates at most `size`, and for a picture four times that.
    """
    known = CODINGS.get(coding)
    if known is None:
        raise DecodeError(f"coding {coding!r} is not known: known are {', '.join(sorted(CODINGS))}")
    return known.decode(data, size, shape)
