"""The committed corpus: inputs to begin from. `python -m tests.fuzz.corpus` writes those that our own encoders make.

Inputs that once found something stay beside them, under names of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.fuzz.targets import CODING_NAMES, KINDS, RECORD_KINDS, REFERENCE, SEGMENT, TARGETS
from tests.packets import FILES, MESSAGES, PACKETS
from tests.schemas.coefficients import CODER, TABLES, example
from tests.schemas.wire import FILE_LENGTH, FILE_PREFIX, PREFIX

from splitbus_device.answer import Answer
from splitbus_device.journal import write_record
from splitbus_device.recorded import pack_answer, pack_head, pack_inputs
from splitbus_gateway.signing import Signer
from splitbus_schemas._sealed import write_clear
from splitbus_schemas.codecs import encode_bytes
from splitbus_schemas.differences import difference, key_frame, settle
from splitbus_schemas.entropy import METHODS
from splitbus_schemas.packet import encode
from splitbus_schemas.packet_types import Job, Sealed
from splitbus_schemas.parts import split
from splitbus_schemas.signature import SLICE
from splitbus_schemas.tensor_file import write_file
from splitbus_schemas.topics import TOPICS

FOLDER: Final = Path(__file__).parent / "corpus"
MAX_SEED_BYTES: Final = 16_384

PROPERTIES: Final = (
    b"\x01\x00\x02\x00\x00\x00\x09\x03\x00\x04text\x09\x00\x02id\x0b\x81\x01\x26\x00\x04plan\x00\x06p12/12"
)
"""Of a PUBLISH: format, expiry, content type, correlation data, subscription, and one of ours (MQTT 5, 3.3.2.3)."""

_TEST_KEY: Final = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
"""Of RFC 8032, section 7.1, TEST 1."""


def made() -> dict[tuple[str, str], bytes]:
    """Inputs of our own encoders, by target and name."""
    seeds = {
        **dict(_packets()),
        **dict(_opened()),
        **dict(_codecs()),
        **dict(_coefficients()),
        **dict(_documents()),
        **dict(_texts()),
        **dict(_kept()),
    }
    return {key: data for key, data in seeds.items() if len(data) <= MAX_SEED_BYTES}


def committed(target: str) -> dict[str, bytes]:
    """The committed inputs of a target, by name."""
    return {path.name: path.read_bytes() for path in sorted((FOLDER / target).iterdir())}


def _packets() -> Iterator[tuple[tuple[str, str], bytes]]:
    for name, content in PACKETS.items():
        data = encode(content)
        _, _, kind, _, header_bytes, _, _, _ = PREFIX.unpack_from(data)
        yield ("packet", name), data
        yield ("sealed-packet", name), bytes([kind]) + header_bytes.to_bytes(2, "little") + data[PREFIX.size :]
        for train in (False, True):
            pieces = [bytes(piece) for piece in split(data, number=7, limit=max(256, len(data) // 3), train=train)]
            joined = b"".join(len(piece).to_bytes(2, "little") + piece for piece in pieces)
            yield ("parts", f"{name}-train" if train else name), joined


def _opened() -> Iterator[tuple[tuple[str, str], bytes]]:
    """Headers of sealed jobs, and what is sealed behind them, not sealed yet."""
    template = PACKETS["sealed-job"]
    assert isinstance(template, Sealed)
    for name in ("job", "job-zstd", "job-pictures"):
        plain = PACKETS[name]
        assert isinstance(plain, Job)
        header, body = write_clear(replace(plain, answer=template.clear.frame.boot), template.seal)
        yield ("opened", name), bytes([7]) + len(header).to_bytes(2, "little") + header + body


def _codecs() -> Iterator[tuple[tuple[str, str], bytes]]:
    picture = (np.mgrid[0:16, 0:24].sum(axis=0)[..., None] * np.ones(3) * 4 % 256).astype(np.uint8)
    for place, coding in enumerate(CODING_NAMES):
        coded = encode_bytes(coding, picture.tobytes(), (1, 16, 24, 3))
        yield ("codec", coding), bytes([place, 4, 6, 3]) + bytes(coded)


def _coefficients() -> Iterator[tuple[tuple[str, str], bytes]]:
    for method in METHODS:
        for spread in (0.2, 3.0, 300.0):
            frame = CODER.encode(example(1, 2, spread), 0, method)
            if frame is not None:
                yield ("coefficients", f"{method}-{spread:g}"), frame
    yield ("tables", "tables"), TABLES.blob
    for name, file in FILES.items():
        data = write_file(file)
        (header_bytes,) = FILE_LENGTH.unpack_from(data, 8)
        yield ("file", name), header_bytes.to_bytes(2, "little") + data[FILE_PREFIX.size :]
    for name, change in (("still", 0.0), ("slow", 0.7), ("fast", 60.0)):
        now = settle(CODER, example(1) + np.float32(change) * (example(2) > 2), 0, REFERENCE)
        if now is not None:
            found = difference(CODER, now, REFERENCE)
            yield ("differences", name), found.frame if found is not None else key_frame(CODER, now)
            yield ("differences", f"{name}-key"), key_frame(CODER, now)


def _documents() -> Iterator[tuple[tuple[str, str], bytes]]:
    signer = Signer(Ed25519PrivateKey.from_private_bytes(_TEST_KEY))
    for name, message in MESSAGES.items():
        yield ("message", name), bytes([KINDS.index(type(message))]) + message.to_json()
    yield ("keys", "keys"), MESSAGES["keys"].to_json()
    yield ("card", "card"), MESSAGES["model"].to_json()
    yield ("signed", "plan"), signer.seal("splitbus/v1/home/ctl/cam1/plan/m", MESSAGES["plan"])
    yield ("signed", "slice"), signer.seal(SLICE, MESSAGES["slice-manifest"])
    yield ("signed", "unsigned"), MESSAGES["plan"].to_json()


def _kept() -> Iterator[tuple[tuple[str, str], bytes]]:
    """What a device writes down of durable frames, and what a broker sends."""
    template = PACKETS["job"]
    assert isinstance(template, Job)
    pixels = {"image": np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4)}
    answer = Answer(
        outputs=[np.arange(6, dtype=np.float32)], route=("cam1", "edge1"), plan="p12", epoch=12, frame="cam1/k3x9/7",
        total_ms=8.5,
    )  # fmt: skip
    contents = (
        pack_inputs(pixels, ["logits"]),
        pack_head(MESSAGES["plan"].to_json(), template.tensors, pixels),
        pack_answer(answer, None),
    )
    segment = b""
    for place, (kind, (facts, body)) in enumerate(zip(RECORD_KINDS, contents, strict=True)):
        joined = b"".join(body)
        yield ("record", kind.name.lower()), bytes([place]) + len(facts).to_bytes(2, "little") + facts + joined
        segment += b"".join(write_record(SEGMENT, len(segment), kind, "a.jpg", 7, facts, (joined,)))
        yield ("journal", kind.name.lower()), segment
    yield ("publish", "job"), _published("splitbus/v1/home/job/edge1/cam1", encode(template))
    yield ("publish", "bare"), _published("splitbus/v1/home/node/cam1/status", b"{}", properties=b"")


def _published(topic: str, payload: bytes, properties: bytes = PROPERTIES) -> bytes:
    name = topic.encode()
    return len(name).to_bytes(2, "big") + name + bytes([len(properties)]) + properties + payload


def _texts() -> Iterator[tuple[tuple[str, str], bytes]]:
    for topic in TOPICS:
        yield ("text", topic.name), topic.at("home", **dict.fromkeys(topic.fields, "cam1")).encode()
    yield ("text", "key"), Signer(Ed25519PrivateKey.from_private_bytes(_TEST_KEY)).public.encode()


def main() -> None:
    """Write what is missing or differs."""
    for target in TARGETS:
        (FOLDER / target).mkdir(parents=True, exist_ok=True)
    for (target, name), data in made().items():
        (FOLDER / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
