"""Control and status messages: JSON that people read with mosquitto_sub. Unknown fields are ignored on read."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from splitbus_schemas.codecs import CODINGS
from splitbus_schemas.errors import DecodeError, PayloadTooLargeError, VersionError
from splitbus_schemas.lean import LeanModel
from splitbus_schemas.limits import (
    BLOB_CHUNK_BYTES,
    MAX_BATCH,
    MAX_BLOB_BYTES,
    MAX_ID_BYTES,
    MAX_INTEGER,
    MAX_JSON_BYTES,
    MAX_LEASE_SECONDS,
    MAX_MBIT,
    MAX_MILLISECONDS,
    MAX_SEAL_KEYS,
    MAX_SEALED_NODES,
    MAX_STAGES,
    MAX_TABLES_BYTES,
    MAX_TERM,
    MIN_MBIT,
    WIRE_VERSION,
)
from splitbus_schemas.seal_keys import KEY_ID_CHARS

Tier = Literal["device", "edge", "cloud"]
Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=MAX_ID_BYTES)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Milliseconds = Annotated[float, Field(ge=0, le=MAX_MILLISECONDS)]
Mbit = Annotated[float, Field(ge=MIN_MBIT, le=MAX_MBIT)]
BLOB_DATA_PATTERN = rf"^splitbus/v{WIRE_VERSION}/[a-z0-9_-]+/blob/data/[a-z0-9_-]+/[a-z0-9_-]+$"
Fraction = Annotated[float, Field(ge=0, le=1)]
Coding = Annotated[str, Field(pattern=f"^({'|'.join(CODINGS)})$")]
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
KeyId = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{KEY_ID_CHARS}}}$")]
PublicKey = Annotated[str, Field(pattern=r"^x25519:[A-Za-z0-9+/]{43}=$")]
Signature = Annotated[str | None, Field(description="The gateway's Ed25519 signature; always the last member.")]


class Message(LeanModel):
    """Base of all JSON messages: frozen, versioned, and lenient towards fields of a later version."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    v: int = Field(default=WIRE_VERSION, description="Version of the wire contract.")

    def to_json(self) -> bytes:
        """UTF-8 JSON, fields that are None left out. Raises PayloadTooLargeError."""
        data = self.model_dump_json(exclude_none=True).encode()
        if len(data) > MAX_JSON_BYTES:
            raise PayloadTooLargeError(type(self).__name__, len(data), MAX_JSON_BYTES)
        return data

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The message in `data`; DecodeError names the field that is wrong."""
        return decode_message(cls, data)


M = TypeVar("M", bound=Message)

MAX_LISTED_ERRORS = 1000
"""Of more, none is named: each would become an object of a kilobyte first."""


def decode_message(kind: type[M], data: bytes) -> M:
    """The message of type `kind` in `data`. Raises DecodeError (VersionError for another version)."""
    what = kind.__name__
    if len(data) > MAX_JSON_BYTES:
        raise DecodeError(f"{what} has {len(data)} bytes, the limit is {MAX_JSON_BYTES}")
    try:  # not model_validate_json: each of its errors holds a copy of the document
        message = kind.model_validate(from_json(data))
    except ValidationError as error:
        _check_version(what, _version(data))
        if error.error_count() > MAX_LISTED_ERRORS:
            raise DecodeError(f"{what}: {error.error_count()} values are wrong") from None
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise DecodeError(f"{what}: {place[:200]}: {first['msg'][:200]}") from None
    except ValueError as error:
        raise DecodeError(f"{what}: the document: Invalid JSON: {str(error)[:200]}") from None
    _check_version(what, message.v)
    return message


class _Envelope(BaseModel):
    v: int = WIRE_VERSION


def _version(data: bytes) -> int:
    """The version of a document that is no message of ours, which a later version may well be."""
    try:
        return _Envelope.model_validate_json(data).v
    except ValidationError:
        return WIRE_VERSION


def _check_version(what: str, version: int) -> None:
    if version != WIRE_VERSION:
        raise VersionError(what, version, WIRE_VERSION)


class Part(LeanModel):
    """Base of what stands inside messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class TensorSpec(Part):
    """A tensor as a slice takes or gives it."""

    name: str
    dtype: str = Field(description="numpy's name: float32, uint8, ...")
    shape: list[Count | None] = Field(description="None where the size is known only at run time.")
    final: bool = Field(default=False, description="It belongs to the model's answer and is passed on unchanged.")


class FileRef(Part):
    """A file that a model consists of."""

    name: str
    sha256: Sha256
    bytes: Count


class WeightRef(Part):
    """A weight of a slice: a blob by hash, and where its bytes lie for a node that holds the model's files."""

    name: str
    dtype: str
    shape: list[Count]
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]
    file: str | None = Field(default=None, description="SHA-256 of the model file that holds the bytes.")
    offset: Count | None = Field(default=None, description="Where in that file they begin.")


class TablesRef(Part):
    """The statistics that a tensor's coefficients are coded with: a blob by hash."""

    tensor: str = Field(description="Name of the coefficients, among the slice's inputs or outputs.")
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, le=MAX_TABLES_BYTES)]


class SliceManifest(Message):
    """A slice: its graph and its weights by hash. The SHA-256 of this document is the slice's name."""

    model: Sha256
    first: Count = Field(description="Cut index at which the slice begins; 0 is the model's input.")
    last: Count = Field(description="Cut index at which it ends.")
    codec_in: str
    codec_out: str
    graph: Sha256
    graph_bytes: Count
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    weights: list[WeightRef]
    tables: list[TablesRef] = Field(default_factory=list, description="What the codings t1 to t12 need.")
    signature: Signature = None


class ModelCard(Message):
    """A registered model: retained at model/<name>."""

    name: Id
    model: Sha256 = Field(description="The model's identity: SHA-256 over its files' hashes, or of its one file.")
    files: list[FileRef]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    nodes: Count = Field(description="How many nodes its graph has.")
    cuts: list[Count] = Field(description="Indices of the cuts that the planner considers.")
    whole_because: str | None = Field(default=None, description="Why the model is served whole, when it is.")
    made_from: Sha256 | None = Field(
        default=None, description="The file that its main file was made from, so that frames enter as uint8 pictures."
    )
    signature: Signature = None


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


class PlanStage(Part):
    """One slice on one node."""

    node: Id
    tier: Tier
    slice: Sha256 | None = Field(default=None, description="None: the tensors are passed as they are.")
    coding: Coding = Field(default="raw", description="How the bytes of its outputs are coded.")
    slack: Annotated[float, Field(ge=0.5, lt=1)] | None = Field(
        default=None,
        description="Its coefficients are told as differences from a frame that the next node holds, each of them once "
        "it lies so many steps off; absent: every frame stands alone.",
    )


class PlanCut(Part):
    """Where the model is cut between two stages."""

    index: Count
    codec: str
    tensors: list[str] = Field(default_factory=list)
    bytes: Count = Field(default=0, description="Expected size on the wire.")


class Step(Part):
    """One step of a frame's way, predicted or measured."""

    what: Literal["run", "encode", "link", "decode", "queue", "other"]
    where: str = Field(description="A node, or node>node for a link.")
    ms: Milliseconds
    bytes: Count | None = None


class Plan(Message):
    """What a device does with each frame; retained at ctl/<device>/plan/<model>."""

    plan: Id
    epoch: Count = Field(description="Grows with every plan of this device and model; lower ones are ignored.")
    device: Id
    model: Sha256
    name: str
    head: PlanStage | None = Field(default=None, description="None: the whole model runs on the device.")
    routes: list[Annotated[list[PlanStage], Field(max_length=MAX_STAGES)]] = Field(
        default_factory=list, description="The remaining stages: first the choice, then alternates for the same head."
    )
    cuts: list[PlanCut] = Field(default_factory=list)
    predicted_ms: Milliseconds
    steps: list[Step] = Field(default_factory=list)
    reason: str
    signature: Signature = None

    @property
    def is_local(self) -> bool:
        """Whether the device answers alone."""
        return self.head is None or not self.routes


class PlanState(Message):
    """What a device made of a plan; retained at node/<device>/plan/<model>."""

    node: Id
    boot: Id
    plan: Id
    epoch: Count
    state: Literal["loading", "active", "failed", "ignored"]
    reason: str | None = None


class Candidate(Part):
    """A way to run the model that the planner priced."""

    label: str
    cuts: list[PlanCut]
    nodes: list[str]
    predicted_ms: Milliseconds
    steps: list[Step] = Field(default_factory=list)
    rebuilt: Fraction | None = Field(
        default=None, description="How alike (SSIM) to the picture is what a decoder makes of what leaves the device."
    )


class NodeInput(Part):
    """A node as a decision saw it."""

    node: Id
    tier: Tier
    whole_ms: Milliseconds | None = Field(default=None, description="The whole model there; None without a profile.")
    wait_ms: Milliseconds = Field(default=0.0, description="How long a job was expected to wait for others.")
    pace: float = Field(default=1.0, description="How many times longer than profiled it runs of late, counted in.")


class Flip(Part):
    """One figure at which the chosen way and its runner-up would tie, all else being equal."""

    what: Literal["up_mbit", "down_mbit", "rtt_ms", "wait_ms", "whole_ms"]
    where: str = Field(description="A node, or node>node for a link.")
    now: float
    at: float
    text: str


Cause = Literal["first", "link", "load", "speed", "nodes", "sizes", "pin", "limits"]
"""What moved a plan: `speed` is a node's own, `load` what others make it wait, `nodes` who came, went or broke."""


class Decision(Message):
    """Why the plan is what it is; retained at ctl/<device>/decision/<model>."""

    device: Id
    model: Sha256
    name: str
    plan: Id
    epoch: Count
    changed: bool
    at: str = Field(description="When, ISO 8601, by the gateway's clock.")
    why: str
    cause: Cause | None = Field(default=None, description="Of the running plan; None when an earlier gateway made it.")
    considered: Count
    chosen: Candidate
    runner_up: Candidate | None = None
    before: Candidate | None = None
    links: list[LinkReport] = Field(default_factory=list)
    nodes: list[NodeInput] = Field(default_factory=list)
    objective: dict[str, float] = Field(default_factory=dict, description="Weights of what plans minimise.")
    limits: dict[str, float | bool | list[str]] = Field(default_factory=dict, description="Those in force.")
    unmet: list[str] = Field(default_factory=list, description="Limits that no way keeps, or that a pin overrides.")
    flips: list[Flip] = Field(default_factory=list, description="What would have to change for the runner-up to win.")
    measured: list[Step] = Field(default_factory=list, description="The plan's steps as its frames have them.")
    measured_ms: Milliseconds | None = Field(default=None, description="Median of its frames, from call to answer.")
    off: float | None = Field(default=None, description="Measured over predicted, less one.")
    blocked: list[str] = Field(default_factory=list, description="What the planner lacked, node by node.")
    signature: Signature = None


class StreamStats(Message):
    """A device's frames over the last period; retained at node/<device>/stream/<model>."""

    node: Id
    boot: Id
    model: Sha256
    plan: str
    epoch: Count
    period_s: Annotated[float, Field(gt=0)]
    frames: Count = Field(description="Frames answered within the period.")
    routes: dict[str, Count] = Field(default_factory=dict, description="Answers by route, e.g. cam>edge1>cloud1.")
    p50_ms: Milliseconds | None = None
    p95_ms: Milliseconds | None = None
    steps: list[Step] = Field(default_factory=list, description="Medians by step over bus answers, or all.")
    cut_bytes: list[Count] = Field(default_factory=list, description="Median coded bytes at each cut.")
    in_flight: Count = 0
    guarded: Count = Field(default=0, description="Frames under this plan that the un-split model was asked as well.")
    agreed: Count = Field(default=0, description="Those of them whose answers said the same.")
    avoided: list[Id] = Field(default_factory=list, description="Workers left alone because frames waited in vain.")
    counters: dict[str, Count] = Field(
        default_factory=dict, description="Since the start: answered, dropped, late, ..."
    )


class Pin(Message):
    """An operator's choice; retained at ops/pin/<device>/<model>, removed by an empty message."""

    cuts: list[PlanCut] = Field(default_factory=list, description="Empty: everything on the device.")
    nodes: list[Id] = Field(default_factory=list, description="The workers, in order; empty lets the gateway choose.")
    by: str = ""


class BlobRequest(Message):
    """A piece of a blob, please; sent to blob/get/<node>, answered at `reply_to`."""

    sha256: Sha256
    offset: Count = 0
    length: Annotated[int, Field(ge=1, le=BLOB_CHUNK_BYTES)] = BLOB_CHUNK_BYTES
    reply_to: Annotated[str, Field(pattern=BLOB_DATA_PATTERN)] = Field(
        description="Where the piece goes: the node's own topic blob/data/<node>/<boot>."
    )
