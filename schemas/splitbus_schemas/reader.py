"""Checked access to a decoded header: a value of the right type and within its limit, or DecodeError says which not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from splitbus_schemas.errors import DecodeError
from splitbus_schemas.ids import is_id, is_sha256
from splitbus_schemas.limits import (
    MAX_INTEGER,
    MAX_NAME_BYTES,
    MAX_TENSOR_BYTES,
    MAX_TEXT_BYTES,
    MAX_TOPIC_BYTES,
    MAX_WORD_BYTES,
)
from splitbus_schemas.topics import REPLY

Key: TypeAlias = str | int

MAX_UTF8_BYTES: Final = 4
"""Of one character."""


class Reader:
    """A map or a row of a header. `what` names it in errors."""

    __slots__ = ("_values", "what")

    def __init__(self, values: Mapping[str, Any] | Sequence[Any], what: str) -> None:
        self._values: Any = values
        self.what = what

    def _get(self, key: Key) -> Any:
        try:
            return self._values[key]
        except (KeyError, IndexError):
            raise DecodeError(f"{self.what}: {key} is missing") from None

    def has(self, key: Key) -> bool:
        """Whether it is there; what was added later need not be."""
        return key in self._values

    def _wrong(self, key: Key, expected: str) -> DecodeError:
        return DecodeError(f"{self.what}: {key} is not {expected}")

    def _string(self, key: Key, limit: int) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not _fits(value, limit):
            raise self._wrong(key, f"a text of at most {limit} bytes")
        return value

    def integer(self, key: Key, limit: int = MAX_INTEGER) -> int:
        """A whole number from 0 to `limit`."""
        value = self._get(key)
        if type(value) is not int or not 0 <= value <= limit:
            raise self._wrong(key, f"a whole number from 0 to {limit}")
        return value

    def integers(self, first: int, last: int, limit: int = MAX_INTEGER) -> list[int]:
        """Whole numbers of a row, from one place to before another."""
        values: list[int] = self._values[first:last]
        for place, value in enumerate(values, first):
            if type(value) is not int or not 0 <= value <= limit:
                raise self._wrong(place, f"a whole number from 0 to {limit}")
        return values

    def flag(self, key: Key) -> bool:
        """True or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def id(self, key: Key) -> str:
        """A name that may stand in a topic."""
        value = self._get(key)
        if not isinstance(value, str) or not is_id(value):
            raise self._wrong(key, "an id of [a-z0-9_-]")
        return value

    def sha256(self, key: Key) -> str:
        """64 hexadecimal digits."""
        value = self._get(key)
        if not isinstance(value, str) or not is_sha256(value):
            raise self._wrong(key, "a SHA-256 in lower-case hexadecimal")
        return value

    def word(self, key: Key) -> str:
        """A short word."""
        return self._string(key, MAX_WORD_BYTES)

    def name(self, key: Key) -> str:
        """A tensor's name."""
        return self._string(key, MAX_NAME_BYTES)

    def text(self, key: Key) -> str:
        """A sentence or two."""
        return self._string(key, MAX_TEXT_BYTES)

    def binary(self, key: Key, size: int) -> bytes:
        """Exactly so many bytes."""
        value = self._get(key)
        if not isinstance(value, bytes) or len(value) != size:
            raise self._wrong(key, f"binary of {size} bytes")
        return value

    def reply_topic(self, key: Key, node: str) -> str:
        """The reply topic of a session of `node`: nobody can make us publish elsewhere."""
        value = self._string(key, MAX_TOPIC_BYTES)
        fields = REPLY.match(value)
        if fields is None or fields["node"] != node:
            raise self._wrong(key, f"a reply topic of {node}")
        return value

    def sizes(self, key: Key, limit: int) -> tuple[int, ...]:
        """A list of at most `limit` whole numbers."""
        value = self._get(key)
        if not isinstance(value, list) or len(value) > limit:
            raise self._wrong(key, f"a list of at most {limit} sizes")
        return tuple(Reader(value, f"{self.what}: {key}").integers(0, len(value), limit=MAX_TENSOR_BYTES))

    def row(self, key: Key, columns: int) -> Reader:
        """A list of at least `columns` values; later versions may append more."""
        return self._row(self._get(key), f"{self.what}: {key}", columns)

    def rows(self, key: Key, columns: int, limit: int) -> Iterable[Reader]:
        """A list of at most `limit` rows."""
        value = self._get(key)
        if not isinstance(value, list) or len(value) > limit:
            raise self._wrong(key, f"a list of at most {limit} rows")
        what = f"{self.what}: {key}"
        return [self._row(entry, what, columns) for entry in value]

    def _row(self, value: Any, what: str, columns: int) -> Reader:
        if not isinstance(value, list) or len(value) < columns:
            raise DecodeError(f"{what}: a row is no list of {columns} values")
        return Reader(value, what)


def _fits(text: str, limit: int) -> bool:
    """Whether a text takes at most so many bytes; one of few characters need not be encoded to tell."""
    return len(text) * MAX_UTF8_BYTES <= limit or len(text.encode("utf-8", "surrogatepass")) <= limit
