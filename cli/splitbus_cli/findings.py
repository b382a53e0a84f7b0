"""What was seen of a broker and a site, and what it means: trap by trap, each with its remedy. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from splitbus_cli.text import size
from splitbus_runtime.visit import Announced
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.limits import MAX_PARTS
from splitbus_schemas.messages import KeyList, Lease, NodeStats, NodeStatus, decode_message
from splitbus_schemas.seal_keys import key_id, read_public
from splitbus_schemas.topics import KEYS, LEASE, STATS, STATUS, parse_topic

LISTEN_SECONDS: Final = 3.0
"""Nodes send statistics every second: one that is silent for so long hangs, or is behind a link that is cut."""

NAGLE_MS: Final = 25.0
"""Linux delays an acknowledgement by 40 ms; no jitter of a healthy network moves a median so far."""

SMALL_PACKET_BYTES: Final = 128 * 1024
"""Some hosted brokers go down to this; below it a frame takes many parts."""

OLD_MOSQUITTO: Final = (2, 0, 13)
"""Fixed wills and the in-flight quota."""


class Level(IntEnum):
    """How bad a finding is; the worst one's number is the exit code."""

    FINE = 0
    WARN = 1
    BAD = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    found: str
    remedy: str = ""


@dataclass
class Seen:
    """What was measured and heard; None where it could not be."""

    announced: Announced
    user: str | None = None
    tls: bool = False
    anonymous: bool | None = None
    large: str = ""
    """The broker's word on a large message, "" when it took it."""
    plan: str = ""
    """Its word on a plan by us, who are no gateway."""
    nagle_ms: float | None = None
    system: dict[str, str] = field(default_factory=dict)
    retained: dict[str, bytes] = field(default_factory=dict)
    speaking: set[str] = field(default_factory=set)
    """Nodes that sent statistics while we listened."""


def judge(seen: Seen) -> Iterator[Finding]:
    """Every finding, the fine ones too. Pure."""
    for check in _CHECKS:
        yield from check(seen)


def _packets(seen: Seen) -> Iterator[Finding]:
    most = seen.announced.max_packet_bytes
    if most is None:
        yield Finding(
            Level.WARN,
            "packet size",
            "the broker announces no limit, so one client's message may take all its memory",
            "max_packet_size 1048576 in its configuration: clients read it and send larger packets in parts",
        )
    elif most < SMALL_PACKET_BYTES:
        most_of_all = size(most * MAX_PARTS)
        yield Finding(
            Level.WARN, "packet size", f"at most {size(most)}: frames go in parts, {most_of_all} in all", "raise it"
        )
    else:
        yield Finding(Level.FINE, "packet size", f"at most {size(most)}, larger ones go in parts")


def _large(seen: Seen) -> Iterator[Finding]:
    if seen.large and "uthori" not in seen.large:
        yield Finding(
            Level.BAD,
            "payload size",
            f"a message within the announced size is refused ({seen.large}): clients send it again for ever",
            "remove message_size_limit from the broker's configuration, set max_packet_size instead",
        )
    else:
        yield Finding(Level.FINE, "payload size", "no limit below the announced one")


def _features(seen: Seen) -> Iterator[Finding]:
    lacking = [
        name
        for name, there in (
            ("QoS 1", seen.announced.max_qos >= 1),
            ("retained messages", seen.announced.retain),
            ("wildcard subscriptions", seen.announced.wildcards),
        )
        if not there
    ]
    if lacking:
        yield Finding(Level.BAD, "features", f"the broker has no {' and no '.join(lacking)}", "use Mosquitto 2")
    else:
        yield Finding(Level.FINE, "features", "QoS 1, retained messages, wildcard subscriptions")
    if (most := seen.announced.receive_maximum) is not None and most < 4:
        yield Finding(Level.WARN, "in flight", f"{most} unacknowledged messages at most", "max_inflight_messages 20")


def _nodelay(seen: Seen) -> Iterator[Finding]:
    if seen.nagle_ms is None:
        yield Finding(
            Level.WARN, "delay", "not measured: our own messages do not come back", "let this user use its echo topic"
        )
    elif seen.nagle_ms > NAGLE_MS:
        yield Finding(
            Level.WARN,
            "delay",
            f"messages wait {seen.nagle_ms:.0f} ms behind small ones",
            "set_tcp_nodelay true in the broker's configuration",
        )
    else:
        yield Finding(Level.FINE, "delay", "messages do not wait behind small ones")


def _doors(seen: Seen) -> Iterator[Finding]:
    if seen.anonymous:
        yield Finding(
            Level.WARN,
            "access",
            "anyone may connect without a name",
            "allow_anonymous false, a password_file and the acl_file of mosquitto/",
        )
    else:
        yield Finding(Level.FINE, "access", "nobody connects without a name")
    if not seen.plan:
        yield Finding(
            Level.BAD if not seen.anonymous else Level.WARN,
            "plans",
            f"{seen.user or 'an anonymous client'}, no gateway, may publish plans: it could send frames anywhere",
            "acl_file with the generated mosquitto/acl",
        )
    else:
        yield Finding(Level.FINE, "plans", f"{seen.user or 'an anonymous client'} may not publish plans")
    if seen.user is not None and not seen.tls:
        yield Finding(Level.WARN, "encryption", "the password went over the network as it is", "use mqtts://")


def _system(seen: Seen) -> Iterator[Finding]:
    version = seen.system.get("version", "")
    number = _version(version)
    if not version:
        yield Finding(Level.FINE, "version", "not told: this user may not read $SYS, or the broker has none")
    elif "mosquitto" in version and number and number < OLD_MOSQUITTO:
        yield Finding(
            Level.WARN,
            "version",
            f"{version} lacks fixes of wills and of the in-flight quota",
            f"use {'.'.join(map(str, OLD_MOSQUITTO))} or later, and keep per_listener_settings false until then",
        )
    else:
        yield Finding(Level.FINE, "version", version)
    dropped = seen.system.get("publish/messages/dropped", "0")
    if dropped.isdecimal() and int(dropped):
        yield Finding(
            Level.WARN,
            "dropped",
            f"the broker dropped {dropped} messages since its start",
            "look for a client that reads slowly (splitbus top), or raise max_queued_bytes",
        )
    for name, state in sorted(seen.system.items()):
        if name.startswith("connection/") and state == "0":
            bridge = name.split("/")[1]
            yield Finding(Level.BAD, "bridge", f"{bridge} is down", "see the log of both brokers")


def _version(text: str) -> tuple[int, ...]:
    words = [word for word in text.split() if word[:1].isdecimal()]
    return tuple(int(part) for part in words[0].split(".") if part.isdecimal()) if words else ()


def _site(seen: Seen) -> Iterator[Finding]:
    statuses = _statuses(seen)
    gateways = [s.node for _, s in statuses if s.tier == "gateway" and s.state == "ready"]
    leader = next((lease.node for lease in _leases(seen) if lease.state != "released"), "")
    if leader in gateways:
        others = [f"{node} stands by" for node in gateways if node != leader]
        yield Finding(Level.FINE, "gateway", ", ".join([f"{leader} leads", *others]))
    elif len(gateways) > 1:
        yield Finding(
            Level.BAD, "gateway", f"{' and '.join(gateways)} both plan for this site", "stop all but one of them"
        )
    elif gateways:
        yield Finding(Level.FINE, "gateway", f"{gateways[0]} is ready")
    else:
        yield Finding(
            Level.WARN, "gateway", "none is ready: cameras keep the plans they have", "start splitbus gateway"
        )
    for topic, status in statuses:
        if status.tier == "gateway" and status.state == "ready" and "; bridge " in (status.reason or ""):
            found, remedy = (
                f"{status.node} {status.reason}",
                "join the brokers again; plans stay as they are until then",
            )
            yield Finding(Level.WARN, "sides", found, remedy)
        if status.state == "lost":
            since = f" since {status.since}" if status.since else ""
            remedy = f"start it, or clear its status: mosquitto_pub -r -n -t '{topic}'"
            yield Finding(Level.WARN, "node", f"{status.node} is lost{since}", remedy)
        elif status.state == "ready" and status.node not in seen.speaking and status.tier != "gateway":
            found = f"{status.node} says ready but nothing else for {LISTEN_SECONDS:g} s: it hangs, or a bridge is down"
            yield Finding(Level.BAD, "node", found, "restart it, look at the bridge")


def _leases(seen: Seen) -> Iterator[Lease]:
    """The one that is retained, if it can be read."""
    for topic, payload in seen.retained.items():
        if LEASE.match(topic) is not None:
            with contextlib.suppress(DecodeError):
                yield decode_message(Lease, payload)


def _statuses(seen: Seen) -> list[tuple[str, NodeStatus]]:
    """The topics and messages that can be read."""
    found = []
    for topic, payload in sorted(seen.retained.items()):
        if STATUS.match(topic) is not None:
            with contextlib.suppress(DecodeError):
                found.append((topic, decode_message(NodeStatus, payload)))
    return found


def _sealing(seen: Seen) -> Iterator[Finding]:
    """Who seals, who should, and whose keys nobody knows."""
    keys = _keys(seen)
    ready = [status for _, status in _statuses(seen) if status.state == "ready" and status.tier != "gateway"]
    if keys is None:
        for status in ready:
            if status.seal is not None:
                found = f"{status.node} seals, but the gateway has published no list of keys"
                yield Finding(Level.WARN, "sealing", found, f"splitbus seal add {status.node}, on the gateway")
        if not any(status.seal for status in ready):
            yield Finding(Level.FINE, "sealing", "nothing is sealed: who owns the broker can read activations")
        return
    listed = {(entry.node, key_id(read_public(key))) for entry in keys.nodes for key in entry.keys}
    roles = {entry.node: entry.role for entry in keys.nodes}
    problems = [finding for status in ready for finding in _unsealed(status, roles, listed, required=keys.required)]
    yield from problems
    for entry in keys.nodes:
        if len(entry.keys) > 1:
            found = f"{entry.node} has two keys, and both count"
            yield Finding(Level.WARN, "sealing", found, f"when it has the new one: splitbus seal retire {entry.node}")
    if not problems:
        rule = "workers run sealed frames only" if keys.required else "cameras that are not listed send in clear"
        yield Finding(Level.FINE, "sealing", f"{len(keys.nodes)} nodes have keys; {rule}")


def _unsealed(
    status: NodeStatus, roles: Mapping[str, str], listed: AbstractSet[tuple[str, str]], *, required: bool
) -> Iterator[Finding]:
    node, is_worker = status.node, status.tier != "device"
    give = "give it its seal_key, and start it again"
    if status.seal is not None:
        if (node, status.seal.key) not in listed:
            found = f"{node} has a key that is not in the gateway's list: nobody opens what it seals"
            yield Finding(Level.WARN, "sealing", found, f"splitbus seal add {node}{' --worker' * is_worker}")
    elif node in roles:
        told = "opens no sealed frames" if is_worker else "sends in clear, and workers refuse its frames"
        yield Finding(Level.WARN, "sealing", f"{node} has a key in the list, but {told}", give)
    elif is_worker:
        found = f"{node} opens no sealed frames: cameras that seal do without it"
        yield Finding(Level.WARN, "sealing", found, f"splitbus seal add {node} --worker")
    elif required:
        found = f"{node} sends in clear, and workers run sealed frames only"
        yield Finding(Level.WARN, "sealing", found, f"splitbus seal add {node}, and {give}")


def _keys(seen: Seen) -> KeyList | None:
    for topic, payload in seen.retained.items():
        if KEYS.match(topic) is not None:
            with contextlib.suppress(DecodeError):
                return decode_message(KeyList, payload)
    return None


def _litter(seen: Seen) -> Iterator[Finding]:
    """Retained where nothing is to be retained, or not to be read."""
    for topic, payload in sorted(seen.retained.items()):
        problem = _problem(topic, payload)
        if problem:
            yield Finding(Level.WARN, "retained", f"{topic}: {problem}", f"clear it: mosquitto_pub -r -n -t '{topic}'")


def _problem(topic: str, payload: bytes) -> str:
    try:
        kind, _ = parse_topic(topic)
        if not kind.retain:
            return f"{kind.name} is retained, and reaches every new subscriber out of time"
        if kind.message is not None:
            decode_message(kind.message, payload)
    except DecodeError as error:
        return str(error)
    return ""


def _pressure(seen: Seen) -> Iterator[Finding]:
    """What nodes count themselves."""
    for topic, payload in sorted(seen.retained.items()):
        fields = STATS.match(topic)
        if fields is None:
            continue
        try:
            counters = decode_message(NodeStats, payload).counters
        except DecodeError:
            continue
        for counter, (meaning, remedy) in _TELLING.items():
            if count := counters.get(counter):
                yield Finding(Level.WARN, "counter", f"{fields['node']} counts {count} {counter}: {meaning}", remedy)


_TELLING: Final = {
    "bad_messages": ("it gets messages that break the contract", "splitbus tap shows which"),
    "unsealed": ("packets came in clear that have to be sealed", "splitbus seal list, and seal_key on the sender"),
    "unopened": ("packets came that it cannot open", "its alerts say why; a few follow each restart of a worker"),
    "replayed": ("packets came twice", "look for a bridge that loops, or for somebody who records and plays again"),
    "plans_failed": ("it could not follow plans", "splitbus plan show tells why"),
}

_CHECKS: Final[Sequence[Callable[[Seen], Iterator[Finding]]]] = (
    _packets,
    _large,
    _features,
    _nodelay,
    _doors,
    _system,
    _site,
    _sealing,
    _litter,
    _pressure,
)
