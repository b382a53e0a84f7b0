"""Golden vectors: what stands in schemas/golden, how it reads, and a program that writes what is missing there.

`python -m tests.schemas.golden` adds vectors for new entries of the corpus. It never touches one that exists: a
vector that no longer fits means that the wire has changed, and every node in the field would notice.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

from tests.packets import FILES, MESSAGES, PACKETS, PART_NUMBER, PARTS

from splitbus_schemas.limits import WIRE_VERSION
from splitbus_schemas.packet import encode, unpack_tensor
from splitbus_schemas.packet_types import Packet, Tensor
from splitbus_schemas.parts import split
from splitbus_schemas.tensor_file import TensorFile, write_file

GOLDEN: Final = Path(__file__).parents[2] / "schemas" / "golden" / f"v{WIRE_VERSION}"


ADDED: Final = {"answer": ""}
"""Fields that came later, and what stands for their absence: vectors of before do not have them."""


def describe(packet: Packet | TensorFile) -> dict[str, Any]:
    """A packet as JSON can hold it: bytes in hexadecimal, tensors decoded."""
    return {"kind": type(packet).__name__, **_plain(packet)}


def _plain(value: Any) -> Any:
    match value:
        case Tensor():
            facts = {name: _plain(getattr(value, name)) for name in ("name", "dtype", "shape", "coding", "final")}
            return {**facts, "bytes": unpack_tensor(value).tobytes().hex()}
        case bytes() | memoryview():
            return value.hex()
        case tuple():
            return [_plain(entry) for entry in value]
        case str() | int():
            return value
        case _:
            found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return {name: _plain(inner) for name, inner in found.items() if ADDED.get(name) != inner}


def is_deterministic(packet: Packet) -> bool:
    """Whether every encoder gives the same bytes; releases of zstd, libjpeg and libwebp differ."""
    return all(tensor.coding == "raw" for tensor in getattr(packet, "tensors", ()))


def parts_of(name: str) -> list[bytes]:
    """The payloads of an entry of PARTS."""
    packet, limit, train = PARTS[name]
    return [bytes(part) for part in split(encode(PACKETS[packet]), number=PART_NUMBER, limit=limit, train=train)]


def vectors() -> dict[str, bytes]:
    """Every file that belongs into GOLDEN, made from the corpus as it is now."""
    files: dict[str, bytes] = {}
    for name, packet in PACKETS.items():
        files[f"packet-{name}.bin"] = encode(packet)
        files[f"packet-{name}.json"] = _pretty(describe(packet))
    for name, (packet_name, limit, train) in PARTS.items():
        payloads = parts_of(name)
        facts = {"packet": packet_name, "limit": limit, "train": train, "lengths": [len(part) for part in payloads]}
        files[f"parts-{name}.bin"] = b"".join(payloads)
        files[f"parts-{name}.json"] = _pretty({**facts, "number": f"{PART_NUMBER:016x}"})
    for name, file in FILES.items():
        files[f"file-{name}.sbp"] = write_file(file)
        files[f"file-{name}.json"] = _pretty(describe(file))
    for name, message in MESSAGES.items():
        files[f"message-{name}.json"] = _pretty(json.loads(message.to_json()))
    return files


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def main() -> None:
    """Write the vectors that are not there yet."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, content in vectors().items():
        if not (GOLDEN / name).exists():
            (GOLDEN / name).write_bytes(content)
            print(f"wrote {name}")  # noqa: T201 - a program


if __name__ == "__main__":
    main()
