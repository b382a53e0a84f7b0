"""What packets carry, as frozen values; their bytes are packet.py's business."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

LACKS_REFERENCE: Final = "reference"
"""Why a node refuses a frame of differences from one that it does not hold; a key frame mends it."""


@dataclass(frozen=True, slots=True)
class FrameId:
    """One inference request: unique for ever, because a boot is."""

    device: str
    boot: str
    seq: int

    def __str__(self) -> str:
        return f"{self.device}/{self.boot}/{self.seq}"


@dataclass(frozen=True, slots=True)
class Hop:
    """A remaining stage: the slice to run, where, and the coding of its outputs."""

    node: str
    slice: str
    coding: str = "raw"


@dataclass(frozen=True, slots=True)
class Spent:
    """What a node did with a frame, in microseconds by its own clock; and how fast the packet arrived there."""

    node: str
    queue_us: int = 0
    decode_us: int = 0
    run_us: int = 0
    encode_us: int = 0
    train_bytes: int = 0
    train_us: int = 0

    @property
    def total_us(self) -> int:
        """Everything but the wire."""
        return self.queue_us + self.decode_us + self.run_us + self.encode_us


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as coded bytes; `final` ones belong to the answer and are passed on unchanged."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    coding: str
    data: bytes | memoryview
    final: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A frame under way: its activations and the stages that remain."""

    frame: FrameId
    model: str
    plan: str
    epoch: int
    attempt: int
    budget_us: int
    """What was left until the deadline when the packet was sent; 0 for no deadline."""
    reply_to: str
    route: tuple[Hop, ...]
    tensors: tuple[Tensor, ...]
    spent: tuple[Spent, ...] = ()
    answer: str = ""
    """The id of the device's key that the answer is to be sealed for; "" when frames of the device are not sealed."""


@dataclass(frozen=True, slots=True)
class Result:
    """A frame's answer."""

    frame: FrameId
    plan: str
    epoch: int
    attempt: int
    tensors: tuple[Tensor, ...]
    spent: tuple[Spent, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A frame that a node would not or could not run, and why."""

    frame: FrameId
    plan: str
    epoch: int
    attempt: int
    node: str
    reason: str
    """One word: busy, expired, slice, input, run, version, seal, reference."""
    detail: str = ""
    spent: tuple[Spent, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """A question that measures a link: answer with an Echo that carries `back` bytes."""

    id: int
    sender: str
    reply_to: str
    back: int
    pad: bytes | memoryview = b""


@dataclass(frozen=True, slots=True)
class Echo:
    """The answer to a Probe: how long it was held, and how fast the probe's bytes arrived."""

    id: int
    node: str
    held_us: int
    train_bytes: int
    train_us: int
    pad: bytes | memoryview = b""


@dataclass(frozen=True, slots=True)
class BlobPiece:
    """A piece of a blob; `total` 0 says that the gateway does not have it, `detail` why."""

    sha256: str
    offset: int
    total: int
    data: bytes | memoryview = field(default=b"", repr=False)
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Seal:
    """By whom, for which life of its receiver, and as which of its packets a packet was sealed."""

    sender: str
    key: str
    """The id of the sender's key."""
    era: str
    """The receiver's word for its present life: what was sealed for an earlier one is not opened."""
    share: bytes
    """The sender's public share of this session's key."""
    number: int
    """Of the packet within the session: never twice."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A job or result whose tensors its receiver alone can read; the rest is in clear, and authentic once opened."""

    clear: Job | Result
    """What everybody may read; the bytes of its tensors are sealed."""
    seal: Seal
    header: bytes = field(repr=False)
    """As it is sent, for it is sealed with the body."""
    body: bytes | memoryview = field(repr=False)
    """All tensors' bytes, sealed, and the tag behind them."""


Packet: TypeAlias = Job | Result | Refusal | Probe | Echo | BlobPiece | Sealed
