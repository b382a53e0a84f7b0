"""A small fuzzer of our own for the tests: inputs of the corpus, damaged at random, the same for the same seed.

It knows nothing of coverage; `make fuzz` runs atheris, which does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final, TypeAlias

MAX_BYTES: Final = 32_768
MAX_CHANGES: Final = 4

Change: TypeAlias = Callable[[Random, bytearray, Sequence[bytes]], None]

_WORDS: Final = (
    b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xc1", b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"[", b"{", b"]", b"}", b'"', b"null", b"-1", b"1e999", b"NaN",
    b"1" * 40, b"[" * 300, b'{"a":' * 300, b"\\ud800", b"\xed\xa0\x80", b"/", b"+", b"#", b"%u", b"\n", b"../",
)  # fmt: skip
"""What parsers stumble over: large lengths in msgpack, nesting, half characters, wildcards."""


def mutants(seeds: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Without end."""
    random = Random(seed)
    while True:
        data = bytearray(random.choice(seeds))
        for _ in range(random.randint(1, MAX_CHANGES)):
            random.choice(_CHANGES)(random, data, seeds)
        yield bytes(data[:MAX_BYTES])


def _place(random: Random, data: bytearray) -> int:
    return random.randint(0, max(0, len(data) - 1))


def _flip(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[_place(random, data)] ^= 1 << random.randint(0, 7)


def _write(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    word, at = random.choice(_WORDS), _place(random, data)
    data[at : at + len(word)] = word


def _insert(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(random, data)
    data[at:at] = random.choice(_WORDS)


def _cut(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(random, data)
    del data[at : at + random.randint(1, 64)]


def _truncate(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_place(random, data) :]


def _repeat(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(random, data)
    piece = data[at : at + random.randint(1, 64)]
    data[at:at] = piece * random.randint(1, 100)


def _splice(random: Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = random.choice(seeds)
    data[_place(random, data) :] = other[random.randint(0, len(other)) :]


_CHANGES: Final[tuple[Change, ...]] = (_flip, _write, _insert, _cut, _truncate, _repeat, _splice)
