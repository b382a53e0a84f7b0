"""Pictures as JPEG and WebP: uint8 tensors of shape [H, W, 3] or [1, H, W, 3]. Pillow is imported at the first one.

What a file announces is read here and held against the tensor's shape, before Pillow makes room for any pixel.
"""
# ruff: noqa: PLC0415 - Pillow comes with the extra `images`, and costs memory that only senders of pictures need

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, TypeAlias

from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.limits import MAX_PICTURE_SIDE

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Format: TypeAlias = Literal["jpeg", "webp"]
Bytes: TypeAlias = bytes | memoryview

WEBP_METHOD: Final = 2
"""Of 0 (fast) to 6 (small). Method 4, Pillow's choice, takes twice as long for 1 to 4 % fewer bytes."""

WEBP_LOSSLESS_METHOD: Final = 0
"""Method 2 takes six times as long for 8 % fewer bytes."""

_PARTS: Final[dict[Format, str]] = {"jpeg": "PIL._imaging", "webp": "PIL._webp"}
_REMEDY: Final = "pip install 'splitbus[images]'"

_SCAN, _BASELINE = 0xDA, 0xC0
_OTHER_FRAMES: Final = {*range(0xC1, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers of JPEG but the baseline's: progressive files, for one, may hold scans without end."""
_METADATA: Final = {*range(0xE1, 0xEE), 0xEF}
_NO_SEGMENT: Final = {0x00, 0x01, 0xFF, *range(0xD0, 0xDA)}


def is_picture(dtype: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is one that picture codings carry."""
    sides = shape[-3:-1]
    return (
        dtype == "uint8"
        and (len(shape) == 3 or (len(shape) == 4 and shape[0] == 1))
        and shape[-1] == 3
        and all(1 <= side <= MAX_PICTURE_SIDE for side in sides)
    )


def can_code(picture: Format) -> bool:
    """Whether this program has what it takes, found out without loading it."""
    try:
        return importlib.util.find_spec(_PARTS[picture]) is not None
    except ModuleNotFoundError:
        return False


def encode_picture(picture: Format, data: Bytes, shape: Sequence[int], *, quality: int = 0) -> bytes:
    """A file of the picture's pixels; lossless WebP for quality 0. Raises ConfigError without Pillow."""
    try:
        from PIL import Image

        _file_class(picture)  # which Pillow would look for among all its formats
    except ImportError as error:
        raise ConfigError(f"{picture} needs Pillow, which is not here: {_REMEDY}") from error
    height, width = shape[-3:-1]
    image = Image.frombytes("RGB", (width, height), bytes(data))
    file = io.BytesIO()
    if picture == "jpeg":
        image.save(file, "JPEG", quality=quality)
    elif quality:
        image.save(file, "WEBP", quality=quality, method=WEBP_METHOD)
    else:
        image.save(file, "WEBP", quality=0, method=WEBP_LOSSLESS_METHOD, lossless=True)
    return file.getvalue()


def decode_picture(picture: Format, data: Bytes, shape: Sequence[int]) -> bytes:
    """The pixels of a file that holds one plain RGB picture of just that shape. Raises DecodeError."""
    height, width = shape[-3:-1]
    found = _jpeg_size(data) if picture == "jpeg" else _webp_size(data)
    if found != (width, height):
        raise DecodeError(f"{picture} tensor is {found[0]}x{found[1]}, its shape needs {width}x{height}")
    try:
        with _file_class(picture)(io.BytesIO(data)) as image:
            _check(image, found)
            return image.tobytes()
    except DecodeError:
        raise
    except ImportError as error:
        raise DecodeError(f"{picture} tensor cannot be decoded without Pillow: {_REMEDY}") from error
    except Exception as error:  # Pillow raises what it likes
        raise DecodeError(f"{picture} tensor cannot be decoded: {error or type(error).__name__}") from error


def _file_class(picture: Format) -> Callable[[BinaryIO], ImageFile]:
    """The format's own class: Pillow's `open` would load other formats too, and look further into the file."""
    if picture == "jpeg":
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    return WebPImageFile


def _check(image: ImageFile, size: tuple[int, int]) -> None:
    """Pillow has read the header as well; no pixel yet."""
    if (image.mode, image.size) != ("RGB", size):
        raise DecodeError(f"picture is {image.mode} of {image.size}, announced was RGB of {size}")


def _jpeg_size(data: Bytes) -> tuple[int, int]:
    """Width and height of a baseline JPEG of three components, one frame, no metadata. Raises DecodeError."""
    if bytes(data[:2]) != b"\xff\xd8" or bytes(data[-2:]) != b"\xff\xd9":
        raise DecodeError("jpeg tensor is no whole JPEG file")
    size: tuple[int, int] | None = None
    at = 2
    while at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if data[at] != 0xFF or marker in _NO_SEGMENT or length < 2:
            break
        if marker in _OTHER_FRAMES or marker in _METADATA:
            raise DecodeError(f"jpeg tensor has a segment {marker:#x}: only baseline files without metadata are read")
        if marker == _SCAN and size is not None:
            return size
        if marker == _BASELINE:
            if size is not None or bytes(data[at + 4 : at + 5]) != b"\x08" or bytes(data[at + 9 : at + 10]) != b"\x03":
                raise DecodeError("jpeg tensor is not of one frame of 3 components of 8 bits")
            size = int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 2 + length
    raise DecodeError("jpeg tensor has no picture between its markers")


def _webp_size(data: Bytes) -> tuple[int, int]:
    """Width and height of a simple WebP file: neither animated nor with alpha or metadata. Raises DecodeError."""
    head = bytes(data[:30])
    if len(head) < 26 or (head[:4], head[8:12]) != (b"RIFF", b"WEBP"):
        raise DecodeError("webp tensor is no WebP file")
    length = int.from_bytes(head[16:20], "little")
    if int.from_bytes(head[4:8], "little") != len(data) - 8 or 20 + length + length % 2 != len(data):
        raise DecodeError(f"webp tensor has {len(data)} bytes, its own lengths differ")
    if head[12:16] == b"VP8 " and len(head) == 30 and not head[20] & 1 and head[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(head[26:28], "little"), int.from_bytes(head[28:30], "little")
    bits = int.from_bytes(head[21:25], "little")
    if head[12:16] == b"VP8L" and head[20] == 0x2F and not bits >> 28:
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise DecodeError(f"webp tensor holds {head[12:16]!r}: only simple files, lossy or lossless, are read")
