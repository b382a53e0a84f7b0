"""What a node says of itself and of its links, and who leads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from splitbus_schemas.limits import MAX_LEASE_SECONDS, MAX_MILLISECONDS, MAX_TERM
from splitbus_schemas.messages.base import (
    Count,
    Fraction,
    Id,
    KeyId,
    Mbit,
    Message,
    Milliseconds,
    Part,
    Sha256,
    Signature,
    Tier,
)


class SealState(Part):
    """What packets have to be sealed for, so that the node can open them."""

    key: KeyId = Field(description="The id of its key: the first 16 digits of the SHA-256 of its public key.")
    era: Id = Field(description="New at every start, and sooner: what was sealed for an earlier one is not opened.")


class NodeStatus(Message):
    """Retained at node/<node>/status; the last will says `lost`, and so does a worker that frames cannot reach."""

    state: Literal["starting", "ready", "stopping", "lost"]
    node: Id
    boot: Id = Field(description="New at every start, so that an old will is told from a new session.")
    tier: Literal["device", "edge", "cloud", "gateway"]
    software: str = ""
    since: str = Field(default="", description="When this state began, ISO 8601, by the node's own clock.")
    reason: str | None = None
    seal: SealState | None = Field(default=None, description="Of a node that takes sealed packets.")
    pace: Annotated[float, Field(ge=1, le=MAX_MILLISECONDS)] | None = Field(
        default=None, description="Its runs take so many times as long as usual; only of a worker that is slow."
    )


class Lease(Message):
    """Which gateway plans for the site; retained at gateway/lease, said again while it lasts."""

    term: Annotated[int, Field(ge=1, le=MAX_TERM)] = Field(
        description="Grows with every change of the gateway that leads; of one term the first claim counts."
    )
    node: Id
    boot: Id
    serial: Count = Field(description="Grows with every lease that this run of the gateway says.")
    state: Literal["claimed", "held", "released"]
    seconds: Annotated[float, Field(gt=0, le=MAX_LEASE_SECONDS)] = Field(
        description="Not said again for so long it is void; each reader counts for itself."
    )
    side: Id | None = Field(default=None, description="On which side of a bridged site that gateway is.")
    signature: Signature = None


class NodeCaps(Message):
    """What a node can do; retained at node/<node>/caps."""

    node: Id
    boot: Id
    tier: Tier
    cores: Count
    memory_mb: Count
    concurrency: Annotated[int, Field(ge=1)] = 1
    codecs: list[str]
    max_packet_bytes: Count
    temporal: bool = Field(default=False, description="It holds frames that later ones may tell differences from.")


class NodeStats(Message):
    """How a node does; published every second or two, retained."""

    node: Id
    boot: Id
    uptime_s: Annotated[float, Field(ge=0)]
    busy: Fraction = Field(description="Share of the last period in which its executors ran.")
    queued: Count = 0
    concurrency: Count = 1
    sessions: Count = 0
    sessions_mb: Annotated[float, Field(ge=0)] = 0.0
    broker_rtt_ms: Milliseconds | None = None
    counters: dict[str, Count] = Field(default_factory=dict)
    term: Count = Field(default=0, description="The highest term whose orders it was given.")


class NodeHealth(Message):
    """Whether a node does its work, and why not; retained at node/<node>/health, told at changes and every 10 s."""

    node: Id
    boot: Id
    tier: Literal["device", "edge", "cloud", "gateway"]
    software: str = ""
    state: Literal["ok", "degraded", "stuck"] = Field(
        description="`degraded`: it works, but something failed within a minute. `stuck`: a part of it hangs, and "
        "systemd's watchdog ends it."
    )
    since: str = Field(default="", description="When this state began, ISO 8601, by the node's own clock.")
    reasons: list[str] = Field(
        default_factory=list, description="Why it is not `ok`, a sentence each, the worst first."
    )
    uptime_s: Annotated[float, Field(ge=0)] = 0.0
    ages_s: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="How old is what: `echo` the last heartbeat through the broker, `oldest_frame` the frame that "
        "waits longest, others what a loop is at.",
    )
    counters: dict[str, Count] = Field(default_factory=dict)


class Alert(Message):
    """Something was refused, dropped or failed; not retained."""

    node: Id
    what: str = Field(description="One word that also names the counter.")
    reason: str
    topic: str | None = None


class SliceState(Message):
    """Which slices a node has warm; retained at node/<node>/slices."""

    node: Id
    boot: Id
    ready: list[Sha256] = Field(default_factory=list)
    loading: list[Sha256] = Field(default_factory=list)
    failed: dict[str, str] = Field(default_factory=dict)
    full: str | None = Field(default=None, description="Why it can keep nothing more; none while its disk has room.")


class LinkReport(Message):
    """A link as its sender sees it, from durations alone; retained at node/<node>/link/<peer>."""

    node: Id
    peer: Id
    rtt_ms: Milliseconds | None = Field(default=None, description="Round trip of a tiny message through the broker.")
    up_mbit: Mbit | None = Field(default=None, description="Goodput from node to peer.")
    down_mbit: Mbit | None = Field(default=None, description="Goodput from peer to node.")
    loss: Fraction = 0.0
    samples: Count = 0
    age_s: Annotated[float, Field(ge=0)] = Field(default=0.0, description="Age of the newest sample when published.")
    confidence: Fraction = 0.0
    source: Literal["traffic", "probe"] = "traffic"
