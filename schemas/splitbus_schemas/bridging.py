"""What crosses the bridge between the two brokers of a site that has a gateway on each side: Mosquitto's lines for it.

What a node writes crosses from its side only, and what it reads towards it, so that no broker sends back, when they are
joined again, the retained state of the other side's nodes as it was when the link broke. What the leading gateway
writes crosses both ways, for either may lead; after a break the leader says it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import check_id
from splitbus_schemas.topics import BEYOND, ROOT, TOPICS, Topic

UPTIME: Final = "$SYS/broker/uptime"
SERVED: Final = {"workers", "gateway", "device"}
"""Who writes to a node: its frames, its answers, its pieces of blobs."""
LED: Final = ("ctl/#", "model/+", "keys", "gateway/lease")
"""What the leader writes, of either side."""
OUTWARDS: Final = ("ops/pin/+/+",)
"""Pins are set at the near broker, for two that were set on both sides meanwhile could not be told apart."""


@dataclass(frozen=True, slots=True)
class Side:
    """The nodes at one broker, by what they are; each has one broker."""

    gateways: Sequence[str] = ()
    workers: Sequence[str] = ()
    devices: Sequence[str] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.gateways, *self.workers, *self.devices)


@dataclass(frozen=True, slots=True)
class Crossing:
    """One topic filter that crosses; `way` as seen from the near broker, which connects."""

    filter: str
    way: str
    qos: int


def crossings(near: Side, far: Side, site: str) -> Iterator[Crossing]:
    """Everything that crosses, each topic once. Raises ConfigError for a bad name, or one that is on both sides."""
    twice = sorted({*near.nodes} & {*far.nodes})
    if twice:
        raise ConfigError(f"{twice[0]} is named on both sides of the bridge: name it where it connects")
    check_id("site", site)
    for led in LED:
        yield Crossing(f"{ROOT}/{site}/{led}", "both", 1)
    for outwards in OUTWARDS:
        yield Crossing(f"{ROOT}/{site}/{outwards}", "out", 1)
    for side, out in ((near, "out"), (far, "in")):
        back = "in" if out == "out" else "out"
        for node in side.nodes:
            yield from (Crossing(filter_, out if told else back, qos) for filter_, qos, told in _of(node, side, site))


def _of(node: str, side: Side, site: str) -> Iterator[tuple[str, int, bool]]:
    """What a node tells (True) and what is told to it: filter, QoS."""
    check_id("node", node)
    yield f"{ROOT}/{site}/node/{node}/#", 1, True
    if node in side.gateways:
        return
    for topic in TOPICS:
        if topic.pattern.startswith(("node/", "ctl/", "ops/")) or "node" not in topic.fields:
            continue
        told = "node" in topic.writers
        if (not told and not SERVED & {*topic.writers}) or (told and topic.readers == ("node",)):
            continue  # its heartbeat tries its own broker
        if topic.name == "job" and node not in side.workers:
            continue
        yield _at(topic, node, site), topic.qos, told


def _at(topic: Topic, node: str, site: str) -> str:
    return topic.at(site, **{field: node if field == "node" else "+" for field in topic.fields})


def bridge_lines(near: Side, far: Side, *, site: str, name: str) -> str:
    """The `topic` lines of the near broker's bridge."""
    lines = [f"topic {one.filter} {one.way} {one.qos}" for one in crossings(near, far, site)]
    prefix = BEYOND.at(site, bridge=name).removesuffix("uptime")
    lines += ["# The uptime of the broker beyond, on both: proof that the bridge carries."]
    lines += [f"topic uptime in 1 {prefix} $SYS/broker/", f"topic uptime out 1 $SYS/broker/ {prefix}"]
    return "\n".join([*lines, ""])


def bridge_rules(near: Side, far: Side, *, site: str, name: str) -> str:
    """What the bridge, as a user of that name, may do at the far broker."""
    access = {"in": "read", "out": "write", "both": "readwrite"}
    lines = [f"user {check_id('bridge', name)}"]
    lines += [f"topic {access[one.way]} {one.filter}" for one in crossings(near, far, site)]
    lines += [
        "# whether the bridge carries, for the gateways of both sides",
        f"topic read {UPTIME}",
        f"topic write {BEYOND.at(site, bridge=name)}",
        f"topic write $SYS/broker/connection/{name}/state",
    ]
    return "\n".join([*lines, ""])


EXAMPLE: Final = {
    "near": Side(("gateway",), ("edge1",), ("cam-a",)),
    "far": Side(("gateway2",), ("cloud1",), ("cam-b",)),
}
"""Of the shipped files."""

SETTINGS: Final = """\
# Bridge from the edge broker to another broker of the same site, with a gateway on each side: in place of bridge.conf.
# Made by `python -m splitbus_schemas.generate`. At the edge are gateway, edge1, cam-a; beyond gateway2, cloud1, cam-b:
# make the topic lines for your own names, as README.md says, and replace the address.

connection splitbus-beyond
address cloud.example.net:8883

# One name for both ends, and the user name at the far broker; `[lease] bridge` of both gateways.
remote_clientid bridge-home
local_clientid bridge-home-local

# The same as in bridge.conf, each with its reason there.
bridge_protocol_version mqttv50
try_private true
bridge_cafile /etc/mosquitto/certs/ca.crt
bridge_certfile /etc/mosquitto/certs/bridge-home.crt
bridge_keyfile /etc/mosquitto/certs/bridge-home.key
bridge_insecure false
bridge_tls_version tlsv1.2
bridge_max_packet_size 1048576
cleansession true
bridge_attempt_unsubscribe false

# Both gateways read $SYS/broker/connection/bridge-home/state.
notifications true

# The least that Mosquitto takes: a dead link is closed after 10 s, the far broker tells so after 8 to 13 s. Then it is
# tried again as often as Mosquitto does, every 1 to 10 s, since both sides wait for it.
keepalive_interval 5
restart_timeout 1

"""


def example_bridge() -> str:
    """mosquitto/bridge-gateways.conf."""
    return SETTINGS + bridge_lines(**EXAMPLE, site="home", name="bridge-home")


def example_rules() -> str:
    """mosquitto/bridge-gateways.acl."""
    heading = (
        "# --- edge broker `home`, for the far broker's ACL, with bridge-gateways.conf; made with it, do not edit.\n"
    )
    return heading + bridge_rules(**EXAMPLE, site="home", name="bridge-home")
