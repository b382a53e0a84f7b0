"""Packets: how long it takes to code and to decode a job, raw and zstd, and how much of that is the checksum.

    .venv/bin/python benchmarks/packet.py [--json FILE]

The activations are the corpus's: small numbers, half of them zero, as a quantised cut puts them on the wire. Encoding
includes the coding of the tensors, decoding gives arrays. Medians; GB/s counts the tensors' decoded bytes,
B those on the wire; the checksum's share of the time stands beside it.
"""

from __future__ import annotations

import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from _report import Figure, parser, report

from splitbus_schemas.codecs import CODINGS
from splitbus_schemas.packet import Array, decode, encode, pack_tensor, unpack_tensor
from splitbus_schemas.packet_types import Job

sys.path.insert(1, str(Path(__file__).parents[1]))
from tests.packets import activation, job

SIZES = {"1kB": 1_000, "16kB": 16_000, "125kB": 125_000, "1MB": 1_000_000, "4MB": 4_000_000}
SECONDS = 0.3


def main() -> None:
    """Measure every size under every coding."""
    options = parser(__doc__).parse_args()
    codings = [name for name, coding in CODINGS.items() if coding.shift is None]  # the others need tables: see codec.py
    figures = [figure for coding in codings for label in SIZES for figure in measure(label, coding)]
    report("packets", figures, options.json)


def measure(label: str, coding: str) -> Iterator[Figure]:
    """Encode and decode one size."""
    arrays = [(tensor.name, tensor.coding, unpack_tensor(tensor)) for tensor in activation(SIZES[label], coding)]
    size = sum(array.nbytes for _, _, array in arrays)
    packet = written(arrays)
    for step, run in (("encode", partial(written, arrays)), ("decode", partial(read, packet))):
        microseconds = median_us(run)
        checksum = median_us(partial(zlib.crc32, packet)) / microseconds
        detail = f"{len(packet)} B, checksum {checksum:.0%}"
        yield Figure(f"packet.{step}.{coding}.{label}", size / microseconds / 1e3, "GB/s", detail)
        yield Figure(f"packet.{step}_us.{coding}.{label}", microseconds, "us")


def written(arrays: list[tuple[str, str, Array]]) -> bytes:
    return encode(job(tuple(pack_tensor(name, array, coding) for name, coding, array in arrays)))


def read(packet: bytes) -> list[Array]:
    decoded = decode(packet)
    assert isinstance(decoded, Job)
    return [unpack_tensor(tensor) for tensor in decoded.tensors]


def median_us(run: Callable[[], object]) -> float:
    """The median duration in microseconds of runs that fill SECONDS, after a first one."""
    run()
    durations: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        durations.append(time.perf_counter() - begin)
    return statistics.median(durations) * 1e6


if __name__ == "__main__":
    main()
