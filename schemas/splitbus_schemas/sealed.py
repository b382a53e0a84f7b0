"""What of a packet is sealed, what is in clear beside it, and what that is bound to. Pure; no cryptography here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from splitbus_schemas._sealed import TAG_BYTES, sealed_number, write_clear
from splitbus_schemas.errors import PayloadTooLargeError, SealError
from splitbus_schemas.limits import MAX_PACKET_BYTES, WIRE_VERSION
from splitbus_schemas.packet_types import Job, Result, Seal, Sealed, Tensor

Cipher: TypeAlias = Callable[[bytes, bytes | memoryview], bytes]
"""From associated data and bytes to sealed or opened bytes."""


def session_info(site: str, sender: str, receiver: str, era: str) -> bytes:
    """What a session's key is bound to, beside the keys of both ends."""
    return "\n".join((f"splitbus/v{WIRE_VERSION} sealed", site, sender, receiver, era)).encode()


def associated(packet: Sealed | Job | Result, header: bytes) -> bytes:
    """What is authentic with the body: the packet's kind and its header."""
    clear = packet.clear if isinstance(packet, Sealed) else packet
    return bytes([sealed_number(clear)]) + header


def seal_packet(packet: Job | Result, seal: Seal, encrypt: Cipher) -> Sealed:
    """The packet with its tensors' bytes sealed as one. Raises PayloadTooLargeError."""
    header, plain = write_clear(packet, seal)
    if len(plain) + TAG_BYTES > MAX_PACKET_BYTES:
        raise PayloadTooLargeError("sealed packet", len(plain) + TAG_BYTES, MAX_PACKET_BYTES)
    body = memoryview(encrypt(associated(packet, header), plain))
    return Sealed(_with_bytes(packet, body), seal, header, body)


def open_packet(sealed: Sealed, decrypt: Cipher) -> Job | Result:
    """The packet as it was before it was sealed. Raises what `decrypt` raises for what is not authentic."""
    plain = decrypt(associated(sealed, sealed.header), sealed.body)
    return _with_bytes(sealed.clear, memoryview(plain))


def _with_bytes(packet: Job | Result, data: memoryview) -> Job | Result:
    """The packet with its tensors' bytes taken from `data`, one after the other."""
    tensors: list[Tensor] = []
    at = 0
    for tensor in packet.tensors:
        end = at + len(tensor.data)
        tensors.append(replace(tensor, data=data[at:end]))
        at = end
    return replace(packet, tensors=tuple(tensors))


def check_sender(packet: Job | Result, sender: str, *, is_worker: bool) -> None:
    """Raises SealError unless the sender may send this: a device its own jobs, a worker whatever passed through it."""
    last = packet.spent[-1].node if packet.spent else ""
    if not is_worker and (not isinstance(packet, Job) or packet.frame.device != sender):
        raise SealError("unopened", f"{sender} is no worker, and sealed a packet of frame {packet.frame}")
    if last != sender:
        raise SealError("unopened", f"frame {packet.frame} was last at {last or 'no node'}, but {sender} sealed it")
