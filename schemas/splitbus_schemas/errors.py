"""Every error of ours, as a tree.

SplitbusError
+-- ModelError            a model file or graph that cannot be used (our caller's fault)
+-- ConfigError           a setting that cannot be used (our caller's fault)
+-- BusError              the broker cannot be reached or refuses us
+-- DecodeError           a message of a peer that breaks the wire contract (the peer's fault)
|   +-- VersionError      it speaks a version that we do not
|   +-- SignatureError    it is not signed by a gateway that is trusted here
|   +-- SealError         it is not sealed as it has to be, or was seen before
|   +-- MissingReferenceError  it tells differences from a frame that is not held here
|   +-- StaleError        an order of a gateway that leads no more
+-- BlobError             a blob that is missing or does not match its hash
|   +-- NoRoomError       it does not fit on the disk any more
+-- JournalError          a journal of durable frames that cannot be written
+-- PayloadTooLargeError  a message larger than a limit, refused before it is sent
+-- UnsatisfiableError    no plan meets the constraints
"""

from __future__ import annotations

from typing import Literal


class SplitbusError(Exception):
    """Base of all errors: one sentence that names the thing and what to do."""


class ModelError(SplitbusError):
    """A model or slice that cannot be read, cut or run."""


class ConfigError(SplitbusError):
    """A setting that is missing, unknown or out of range."""


class BusError(SplitbusError):
    """The broker cannot be reached, or refused us."""


class DecodeError(SplitbusError):
    """Bytes from the wire that are no valid message."""

    counter = "bad_messages"
    """The counter and the alert under which a node reports it."""


class VersionError(DecodeError):
    """A message in a version that this program does not speak."""

    def __init__(self, what: str, version: int, supported: int) -> None:
        super().__init__(f"{what} has version {version}, this program speaks {supported}: upgrade the older side")
        self.version = version


class SignatureError(DecodeError):
    """A document that no trusted gateway signed: `counter` is `unsigned`, or `forged` for a signature that is wrong."""

    def __init__(self, counter: Literal["unsigned", "forged"], message: str) -> None:
        super().__init__(message)
        self.counter = counter


class SealError(DecodeError):
    """A packet that is `unsealed` and must not be, cannot be opened (`unopened`), or came before (`replayed`).

    `unsealable` is one of our own, for which the receiver's key is not known.
    """

    def __init__(
        self, counter: Literal["unsealed", "unopened", "replayed", "unsealable", "stale_keys"], message: str
    ) -> None:
        super().__init__(message)
        self.counter = counter


class MissingReferenceError(DecodeError):
    """A frame of differences whose reference is not, or no longer, held: a key frame mends it."""

    def __init__(self, name: bytes) -> None:
        super().__init__(f"reference {name.hex()} is not held here: send a key frame")
        self.name = name


class StaleError(DecodeError):
    """An order of an earlier term than one that was seen."""

    counter = "stale_orders"


class BlobError(SplitbusError):
    """A blob that is missing, or whose bytes do not match its hash."""


class NoRoomError(BlobError):
    """Bytes that do not fit on the disk: there is nothing wrong with them, and later there may be room."""


class JournalError(SplitbusError):
    """A device's journal of durable frames that cannot be written or read."""


class PayloadTooLargeError(SplitbusError):
    """A message that would exceed a limit; raised before anything is sent."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"{what} has {size} bytes, the limit is {limit}")
        self.size = size
        self.limit = limit


class UnsatisfiableError(SplitbusError):
    """No plan meets the constraints; the message names the one to blame."""
