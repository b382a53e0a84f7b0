"""What the gateway asks of nodes and tells them of each other, and the profile that comes of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from splitbus_schemas.limits import MAX_BATCH, MAX_SEAL_KEYS, MAX_SEALED_NODES
from splitbus_schemas.messages.base import (
    Count,
    Id,
    Message,
    Milliseconds,
    Part,
    PublicKey,
    Sha256,
    Signature,
    Tier,
)


class Anchor(Part):
    """A cut at which head and tail are timed as they would run, so that the blocks' times can be put right."""

    cut: Count
    head: Sha256
    tail: Sha256


class ProfileRequest(Part):
    """Blocks to be timed: slices between neighbouring cuts, in order, that together are the model."""

    model: Sha256
    cuts: list[Count] = Field(description="The cut at which each block ends.")
    blocks: list[Sha256]
    whole: Sha256 = Field(description="The slice that is the whole model; the blocks' times are put right by its time.")
    anchors: list[Anchor] = Field(default_factory=list, description="At a few of the cuts, in order.")
    batches: list[Annotated[int, Field(ge=1, le=MAX_BATCH)]] = Field(
        default=[1], description="Batch sizes to be timed; 1 is always timed."
    )
    round: Count = Field(default=0, description="A node that has answered a lower round only profiles again.")


class NodeWork(Message):
    """What the gateway wants a node to hold and to measure; retained at ctl/<node>/work."""

    slices: list[Sha256] = Field(default_factory=list)
    profiles: list[ProfileRequest] = Field(default_factory=list)
    term: Count = 0
    signature: Signature = None


class BatchTimes(Part):
    """The blocks at a larger batch, for the batch as a whole."""

    batch: Annotated[int, Field(ge=2, le=MAX_BATCH)]
    block_ms: list[Milliseconds]
    whole_ms: Milliseconds


class NodeProfile(Message):
    """How long each block of a model takes on a node that does nothing else; retained at node/<node>/profile/<model>.

    The time from the input to a cut is the sum of the blocks before it: what a head to there takes, call included.
    """

    node: Id
    boot: Id
    model: Sha256
    cuts: list[Count] = Field(description="The cut at which each block ends.")
    block_ms: list[Milliseconds] = Field(description="Median, corrected so that the blocks sum to the whole.")
    spread_ms: list[Milliseconds] = Field(description="Interquartile range of each block.")
    whole_ms: Milliseconds
    local_ms: Milliseconds | None = Field(
        default=None, description="The model's own file, on a node that has it: it may be slower than its slices."
    )
    runs: Count = Field(description="How many readings of each block the medians are of.")
    batches: list[BatchTimes] = Field(default_factory=list, description="At the larger batches that were asked for.")
    round: Count = Field(default=0, description="That of the request.")


class Peer(Part):
    """Another node that this one may send to."""

    node: Id
    tier: Tier


class Peers(Message):
    """Whom a node may have to reach; it keeps these links measured. Retained at ctl/<node>/peers."""

    peers: list[Peer] = Field(default_factory=list)
    term: Count = 0
    signature: Signature = None


class NodeKeys(Part):
    """A node that seals what it sends, and opens what is sealed for it."""

    node: Id
    role: Literal["device", "worker"] = Field(description="A device seals its own frames, a worker those of any.")
    keys: Annotated[list[PublicKey], Field(min_length=1, max_length=MAX_SEAL_KEYS)] = Field(
        description="Its public keys, the newest first; an older one until the node has the new one."
    )


class KeyList(Message):
    """Whose keys count, retained at keys; nodes keep it, and refuse one that is older than theirs."""

    epoch: Count = Field(description="Grows with every change.")
    nodes: Annotated[list[NodeKeys], Field(max_length=MAX_SEALED_NODES)] = Field(default_factory=list)
    required: bool = Field(default=False, description="Workers run no frame that is not sealed, of whatever device.")
    signature: Signature = None
