"""The one registry of topics. AsyncAPI document, ACL and the docs' topic table are generated from it."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

from splitbus_schemas import messages as m
from splitbus_schemas import packet_types as p
from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.ids import check_id, is_id
from splitbus_schemas.limits import MAX_TOPIC_BYTES, WIRE_VERSION

ROOT: Final = f"splitbus/v{WIRE_VERSION}"

_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Topic:
    """One kind of topic: who writes it, who reads it, how it is delivered, what it carries.

    `writers` and `readers` are roles: `node` is the node named in the topic, `device` the device named in it,
    `nodes` any node, `workers`, `gateway`, `operators`, `bridge` the broker itself.
    """

    name: str
    pattern: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    qos: int
    retain: bool
    message: type[m.Message] | None
    """None for binary packets."""
    about: str
    packets: tuple[type[p.Packet], ...] = ()
    """The binary packets that it may carry."""

    def at(self, site: str, **fields: str) -> str:
        """The topic with its fields filled in; pass "+" for a wildcard. Raises ConfigError for what cannot stand there."""
        for name, value in (("site", site), *fields.items()):
            if value != "+":
                check_id(name, value)
        topic = f"{ROOT}/{site}/{self.pattern.format(**fields)}"
        if len(topic) > MAX_TOPIC_BYTES:
            raise ConfigError(f"topic {topic} has {len(topic)} bytes, the limit is {MAX_TOPIC_BYTES}: use shorter ids")
        return topic

    def match(self, topic: str) -> dict[str, str] | None:
        """The fields of `topic`, with `site`, or None when it is of another kind."""
        fields = _match(self.pattern, topic) if len(topic) <= MAX_TOPIC_BYTES else None
        return dict(fields) if fields is not None else None

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields, left to right."""
        return tuple(_FIELD.findall(self.pattern))


@functools.lru_cache(1024)
def _match(pattern: str, topic: str) -> tuple[tuple[str, str], ...] | None:
    """Remembered, for frames come and go under the same few topics."""
    match = _compiled(pattern).fullmatch(topic)
    fields = match.groupdict() if match else {}
    return tuple(fields.items()) if fields and all(is_id(value) for value in fields.values()) else None


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    body = _FIELD.sub(r"(?P<\1>[^/]+)", pattern)
    return re.compile(f"{ROOT}/(?P<site>[^/]+)/{body}")


# fmt: off
STATUS: Final = Topic(
    "status", "node/{node}/status", ("node",), ("nodes", "gateway", "operators"), 1, True, m.NodeStatus,
    "Whether a node is there. Its last will says `lost`; so does a worker itself while frames cannot reach it.",
)
CAPS: Final = Topic(
    "caps", "node/{node}/caps", ("node",), ("gateway", "operators"), 1, True, m.NodeCaps,
    "What a node is and can do.",
)
STATS: Final = Topic(
    "stats", "node/{node}/stats", ("node",), ("gateway", "operators"), 0, True, m.NodeStats,
    "Load and counters of a node, every second.",
)
HEALTH: Final = Topic(
    "health", "node/{node}/health", ("node",), ("gateway", "operators"), 0, True, m.NodeHealth,
    "Whether a node does its work, since when, and why not.",
)
ALERT: Final = Topic(
    "alert", "node/{node}/alert", ("node",), ("gateway", "operators"), 0, False, m.Alert,
    "Something refused, dropped or failed, with the reason.",
)
SLICES: Final = Topic(
    "slices", "node/{node}/slices", ("node",), ("gateway", "operators"), 1, True, m.SliceState,
    "Slices that a node has warm, loads, or could not load.",
)
PROFILE: Final = Topic(
    "profile", "node/{node}/profile/{model}", ("node",), ("gateway", "operators"), 1, True, m.NodeProfile,
    "How long each block of a model takes there.",
)
LINK: Final = Topic(
    "link", "node/{node}/link/{peer}", ("node",), ("gateway", "operators"), 0, True, m.LinkReport,
    "A link as measured by the node.",
)
PLAN_STATE: Final = Topic(
    "plan-state", "node/{node}/plan/{model}", ("node",), ("gateway", "operators"), 1, True, m.PlanState,
    "The plan that a device really follows.",
)
STREAM: Final = Topic(
    "stream", "node/{node}/stream/{model}", ("node",), ("gateway", "operators"), 0, True, m.StreamStats,
    "A device's frames of the last second: routes, latency by step, counters.",
)
PLAN: Final = Topic(
    "plan", "ctl/{node}/plan/{model}", ("gateway",), ("node", "gateway", "operators"), 1, True, m.Plan,
    "What the device is to do with each frame.",
)
DECISION: Final = Topic(
    "decision", "ctl/{node}/decision/{model}", ("gateway",), ("node", "operators"), 1, True, m.Decision,
    "Why: inputs, prediction, runner-up.",
)
WORK: Final = Topic(
    "work", "ctl/{node}/work", ("gateway",), ("node", "gateway", "operators"), 1, True, m.NodeWork,
    "Slices that the node is to hold, models that it is to profile.",
)
PEERS: Final = Topic(
    "peers", "ctl/{node}/peers", ("gateway",), ("node", "gateway", "operators"), 1, True, m.Peers,
    "Whom the node may have to reach.",
)
MODEL: Final = Topic(
    "model", "model/{name}", ("gateway",), ("nodes", "gateway", "operators"), 1, True, m.ModelCard,
    "A registered model.",
)
KEYS: Final = Topic(
    "keys", "keys", ("gateway",), ("nodes", "gateway", "operators"), 1, True, m.KeyList,
    "Whose keys count where packets are sealed.",
)  # fmt: skip
LEASE: Final = Topic(
    "lease", "gateway/lease", ("gateway",), ("gateway", "operators"), 1, True, m.Lease,
    "Which of the site's gateways plans.",
)
BEYOND: Final = Topic(
    "beyond", "bridge/{bridge}/uptime", ("bridge",), ("gateway", "operators"), 1, True, None,
    "The uptime of the broker beyond a bridge, every two seconds: proof that the bridge carries. Text, for people.",
)
PIN: Final = Topic(
    "pin", "ops/pin/{node}/{model}", ("operators",), ("gateway", "operators"), 1, True, m.Pin,
    "An operator's choice for a device; empty removes it.",
)
JOB: Final = Topic(
    "job", "job/{node}/{device}", ("device", "workers"), ("node", "operators"), 0, False, None,
    "Activations for a worker, from or on behalf of the device.", (p.Job, p.Sealed, p.Probe),
)
REPLY: Final = Topic(
    "reply", "reply/{node}/{boot}", ("workers",), ("node", "operators"), 0, False, None,
    "Answers to one session of a node.", (p.Result, p.Sealed, p.Refusal, p.Echo),
)
BLOB_GET: Final = Topic(
    "blob-get", "blob/get/{node}", ("node",), ("gateway", "operators"), 1, False, m.BlobRequest,
    "A node asks for a piece of a blob.",
)
BLOB_DATA: Final = Topic(
    "blob-data", "blob/data/{node}/{boot}", ("gateway",), ("node", "operators"), 1, False, None,
    "The piece.", (p.BlobPiece,),
)
ECHO: Final = Topic(
    "echo", "echo/{node}", ("node",), ("node",), 0, False, None,
    "A node's own heartbeat through the broker; its round trip feeds the watchdog.",
)

TOPICS: Final = (
    STATUS,
    CAPS,
    STATS,
    HEALTH,
    ALERT,
    SLICES,
    PROFILE,
    LINK,
    PLAN_STATE,
    STREAM,
    PLAN,
    DECISION,
    WORK,
    PEERS,
    MODEL,
    KEYS,
    LEASE,
    BEYOND,
    PIN,
    JOB,
    REPLY,
    BLOB_GET,
    BLOB_DATA,
    ECHO,
)
# fmt: on


def parse_topic(topic: str) -> tuple[Topic, dict[str, str]]:
    """The kind of `topic` and its fields, `site` among them. Raises DecodeError for a topic that is not ours."""
    for kind in TOPICS:
        fields = kind.match(topic)
        if fields is not None:
            return kind, fields
    raise DecodeError(f"topic {topic[:200]!r} is none of splitbus")
