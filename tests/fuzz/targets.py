"""Every decoder that reads bytes of others, as a function from bytes: it reads them or refuses them, and nothing else.

An input is what comes from the wire; where a decoder needs more (which message, which coding) its first bytes say so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from tests.packets import SEAL_SECRETS, SEAL_SHARE
from tests.schemas.coefficients import CODER, SHAPE, Memory, example
from tests.schemas.wire import seal, seal_file

from splitbus_device.cards import Cards, files_of
from splitbus_device.journal import Kind, Record, scan
from splitbus_device.recorded import unpack_answer, unpack_head, unpack_inputs
from splitbus_runtime.keyring import Keyring, Known, read_keys
from splitbus_runtime.publish_packet import read_publish
from splitbus_runtime.sealing import Sealer
from splitbus_runtime.trust import Trust
from splitbus_schemas import messages as m
from splitbus_schemas import packet, topics
from splitbus_schemas.codecs import CODINGS
from splitbus_schemas.entropy import read_coder
from splitbus_schemas.errors import ConfigError, DecodeError, ModelError
from splitbus_schemas.packet_types import Job, Result, Sealed, Tensor
from splitbus_schemas.parts import Assembler
from splitbus_schemas.references import Reference
from splitbus_schemas.seal_keys import key_id
from splitbus_schemas.sealed import session_info
from splitbus_schemas.signature import SLICE, read_key
from splitbus_schemas.tensor_file import read_file

Target: TypeAlias = Callable[[bytes], None]

KINDS: Final[tuple[type[m.Message], ...]] = tuple(
    sorted(
        {m.SliceManifest, *(topic.message for topic in topics.TOPICS if topic.message is not None)},
        key=lambda kind: kind.__name__,
    )
)
"""By their place here the first byte of an input for `message` names them; sorted, so that a new one moves few."""

PUBLIC_KEY: Final = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
"""Of RFC 8032, section 7.1, TEST 1: everybody has its private key."""

CODING_NAMES: Final = sorted(name for name, coding in CODINGS.items() if coding.shift is None)
"""Those that need no tables. By their place here the first byte of an input for `codec` names them."""

REFERENCE: Final = Reference(np.rint(example(1)).astype(np.int16).reshape(1, -1), 0, CODER.tables.id)
"""What the receiver of differences holds."""

NOWHERE: Final = Path("/nowhere")
"""A folder that is not there."""

SEGMENT: Final = 3
RECORD_KINDS: Final = (Kind.INPUT, Kind.HEAD, Kind.ANSWER)

_TRUST: Final = Trust([PUBLIC_KEY])

SEAL_ERA: Final = "0123456789abcdef"
SEALED_AS: Final = 5
SEAL_KEYS: Final = Known(
    keys={(node, key_id(secret.public)): secret.public for node, secret in SEAL_SECRETS.items()},
    devices=frozenset({"cam1"}),
    workers=frozenset({"edge1"}),
)
_SESSION: Final = SEAL_SECRETS["cam1"].send_to(
    SEAL_SECRETS["edge1"].public, session_info("home", "cam1", "edge1", SEAL_ERA), SEAL_SHARE
)[1]
"""That of the packets in the corpus."""


def _packet(data: bytes) -> None:
    found = packet.decode(data)
    for tensor in found.tensors if isinstance(found, Job | Result) else ():
        packet.unpack_tensor(tensor)


def _sealed_packet(data: bytes) -> None:
    """Kind, length of the header in two bytes, header, body: behind a right checksum."""
    length = int.from_bytes(data[1:3], "little")
    _packet(seal(data[0] if data else 0, data[3 : 3 + length], data[3 + length :], packed=True))


def _opened(data: bytes) -> None:
    """The same, sealed by a camera that has a key: what a worker does with a hostile one."""
    kind, length = (data[0] if data else 0), int.from_bytes(data[1:3], "little")
    header, body = data[3 : 3 + length], data[3 + length :]
    keyring = Keyring(_TRUST, site="home", path=NOWHERE / "keys.json")
    keyring.known = SEAL_KEYS
    sealed = _SESSION.seal(SEALED_AS, bytes([kind]) + header, body)
    found = packet.decode(seal(kind, header, sealed, packed=True))
    if not isinstance(found, Sealed):
        raise DecodeError("it is not sealed")
    opened = Sealer(SEAL_SECRETS["edge1"], keyring, site="home", node="edge1", era=SEAL_ERA).open(found)
    for tensor in opened.tensors:
        packet.unpack_tensor(tensor)


def _parts(data: bytes) -> None:
    """Messages of one topic, each behind its length in two bytes; a second passes between them."""
    assembler = Assembler()
    for moment, payload in enumerate(_pieces(data)):
        with contextlib.suppress(DecodeError):
            arrival = assembler.feed(payload, float(moment))
            if arrival is not None:
                _packet(bytes(arrival.data))


def _pieces(data: bytes) -> Iterator[bytes]:
    while data:
        end = 2 + int.from_bytes(data[:2], "little")
        yield data[2:end]
        data = data[end:]


def _codec(data: bytes) -> None:
    """Coding, height, width, channels, then the bytes."""
    coding, height, width, channels = (*data[:4], *bytes(4 - len(data[:4])))
    shape = (1, height * 4, width * 4, channels % 8)
    array = packet.unpack_tensor(Tensor("x", "uint8", shape, CODING_NAMES[coding % len(CODING_NAMES)], data[4:]))
    if array.shape != shape:
        raise AssertionError(f"{array.shape} was decoded, {shape} was asked for")


def _coefficients(data: bytes) -> None:
    """A frame, for the tables of the tests."""
    found = packet.unpack_tensor(Tensor("x::t", "float32", (2, *SHAPE), "t5", data), CODER)
    if found.shape != (2, *SHAPE):
        raise AssertionError(f"{found.shape} was decoded")


def _differences(data: bytes) -> None:
    """A frame of differences, where one earlier frame is held; what its name says is not looked at."""
    held = Memory({data[12:20]: REFERENCE})
    tensor = Tensor("x::t", "float32", (1, *SHAPE), "t5", data)
    found = packet.unpack_tensor(tensor, CODER, held)
    if found.shape != (1, *SHAPE) or len(held) > 2:
        raise AssertionError(f"{found.shape} was decoded, {len(held)} frames are held")


def _tables(data: bytes) -> None:
    read_coder(data)


def _file(data: bytes) -> None:
    """Length of the header in two bytes, header, body: behind a right checksum."""
    length = int.from_bytes(data[:2], "little")
    for tensor in read_file(seal_file(data[2 : 2 + length], data[2 + length :])).tensors:
        packet.unpack_tensor(tensor)


def _message(data: bytes) -> None:
    KINDS[(data[0] if data else 0) % len(KINDS)].from_json(data[1:])


def _signed(data: bytes) -> None:
    """What a node does with a plan, and with the manifest of a slice."""
    for context, kind in (("splitbus/v1/home/ctl/cam1/plan/m", m.Plan), (SLICE, m.SliceManifest)):
        with contextlib.suppress(DecodeError):
            kind.from_json(_TRUST.open(context, data))


def _keys(data: bytes) -> None:
    """A list of keys that the gateway signed, as nodes look keys up in it."""
    read_keys(m.KeyList.from_json(data))


def _card(data: bytes) -> None:
    """A model's card, and where a device would put its files."""
    cards = Cards()
    cards.note("person", data)
    card = cards.wait(lambda _: True, 0.0)
    if card is None:
        return
    folder = NOWHERE / "models"
    with contextlib.suppress(ModelError):
        for _, path in files_of(card, folder):
            if not Path(os.path.normpath(path)).is_relative_to(folder):
                raise AssertionError(f"{path} lies elsewhere")


def _publish(data: bytes) -> None:
    """What a broker sends, behind the fixed header."""
    read_publish(data, retain=False)


def _journal(data: bytes) -> None:
    """A segment of the journal: what is no record is told, and nothing is left out."""
    found = list(scan(SEGMENT, data))
    if sum(one.spot.length for one in found) != len(data):
        raise AssertionError(f"{found} leaves out some of {len(data)} bytes")
    if any(one.record is None for one in found):
        raise DecodeError("damaged")


def _record(data: bytes) -> None:
    """Kind, length of the facts in two bytes, facts, body: behind a right checksum."""
    reads = (unpack_inputs, unpack_head, unpack_answer)
    kind, length = (data[0] if data else 0) % len(reads), int.from_bytes(data[1:3], "little")
    reads[kind](Record(RECORD_KINDS[kind], "a.jpg", 7, data[3 : 3 + length], data[3 + length :]))


def _text(data: bytes) -> None:
    """A topic, and a key as settings have it."""
    text = data.decode(errors="replace")
    with contextlib.suppress(ConfigError):
        read_key(text)
    topics.parse_topic(text)


TARGETS: Final[dict[str, Target]] = {
    "packet": _packet,
    "sealed-packet": _sealed_packet,
    "opened": _opened,
    "parts": _parts,
    "codec": _codec,
    "coefficients": _coefficients,
    "differences": _differences,
    "tables": _tables,
    "file": _file,
    "message": _message,
    "signed": _signed,
    "keys": _keys,
    "card": _card,
    "publish": _publish,
    "journal": _journal,
    "record": _record,
    "text": _text,
}


def try_one(name: str, data: bytes) -> bool:
    """Whether the input was read; False when it was refused. Anything else that a decoder raises is a find."""
    try:
        TARGETS[name](data)
    except DecodeError:
        return False
    return True
