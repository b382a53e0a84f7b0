"""The one module that touches paho: its client, and the properties of MQTT 5 packets."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from splitbus_runtime.bus import Delivery, UserProperties, Will
from splitbus_runtime.publish_packet import read_publish
from splitbus_runtime.sockets import TlsSocket, tune
from splitbus_schemas.errors import DecodeError

log = logging.getLogger(__name__)

Message: TypeAlias = paho.MQTTMessage

REASON_AT: Final = 2
"""In a PUBACK, behind the packet's number."""
PACKET_TOO_LARGE: Final = 0x95
"""What Mosquitto says above its `message_size_limit`; MQTT 5 does not foresee it there (M6 in docs/pitfalls.md)."""
IMPLEMENTATION_SPECIFIC: Final = 0x83

QOS_BITS: Final = 0x06
RETAIN_BIT: Final = 0x01
"""Of a PUBLISH packet's first byte."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who connects, and with what; the broker publishes `will` should it lose us."""

    client_id: str
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    will: Will | None = None
    receive_maximum: int = 64
    """Messages of QoS 1 that we take unacknowledged."""


class Client(paho.Client):
    """paho's client, with messages of QoS 0 read our way: paho's takes 0.2 ms for 125 kB with four properties."""

    def __init__(self, caller: Caller, deliver: Callable[[Delivery], None]) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id=caller.client_id, protocol=paho.MQTTv5)
        self._caller, self._deliver = caller, deliver
        if caller.username is not None:
            self.username_pw_set(caller.username, caller.password)
        if caller.tls is not None:
            caller.tls.sslsocket_class = TlsSocket
            self.tls_set_context(caller.tls)
        if (will := caller.will) is not None:
            self.will_set(will.topic, will.payload, qos=1, retain=True, properties=_will_properties(will.delay_s))
        self.on_socket_open = lambda _client, _data, sock: tune(sock)

    def dial(self, host: str, port: int, keepalive_s: int) -> None:
        """Connect. Raises OSError or ValueError."""
        self.connect(
            host,
            port,
            keepalive_s,
            clean_start=True,
            properties=_connect_properties(self._caller.receive_maximum),
        )

    def _handle_publish(self) -> MQTTErrorCode:
        """Overrides paho's own; were it renamed there, paho's would be used."""
        command: int = self._in_packet["command"]
        if command & QOS_BITS:
            return super()._handle_publish()
        try:
            self._deliver(read_publish(self._in_packet["packet"], retain=bool(command & RETAIN_BIT)))
        except DecodeError as error:
            log.warning("the broker sent a message that cannot be read: %s", error)
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        """Overrides paho's own, which takes a reason that it does not know for a broken connection, and comes again."""
        packet = self._in_packet["packet"]
        if len(packet) > REASON_AT and packet[REASON_AT] == PACKET_TOO_LARGE:
            packet[REASON_AT] = IMPLEMENTATION_SPECIFIC
        return super()._handle_pubackcomp(cmd)

    def ping(self) -> None:
        """Ask the broker for an answer."""
        self._send_simple_command(paho.PINGREQ)

    def _check_keepalive(self) -> None:
        """Overrides paho's own: `liveness` says when to ping, and when to give up."""


REMEDIES: Final = {
    "Not authorized": ": check username, password and ACL",
    "Bad user name or password": ": check username and password",
    "Unsupported protocol version": ": the broker must speak MQTT 5",
    "Client identifier not valid": ": choose another node id",
    "Session taken over": ": does another program use this id?",
}


def why_not(error: Exception) -> str:
    """Why there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}: check cafile and the host's name"
    return f"cannot connect: {error}"


PROPERTIES_KEPT: Final = 32
"""Kinds of properties: one or two of each plan that a node's frames are under. Each takes some 4 kB, and those of plans
that are gone are never asked for again.
"""


@lru_cache(maxsize=PROPERTIES_KEPT)
def publish_properties(user: UserProperties, expiry_s: int | None) -> Properties | None:
    """Publish properties; building them costs more than sending them, and a plan's frames share theirs."""
    if not user and expiry_s is None:
        return None
    properties = _new(PacketTypes.PUBLISH)
    if user:
        properties.UserProperty = list(user)
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    return properties


def _connect_properties(receive_maximum: int) -> Properties:
    """How many unacknowledged messages we take."""
    properties = _new(PacketTypes.CONNECT)
    properties.ReceiveMaximum = receive_maximum
    return properties


def options(qos: int) -> SubscribeOptions:
    """How a filter is subscribed to."""
    return SubscribeOptions(qos=qos)


def _new(kind: int) -> Properties:
    properties: Properties = Properties(kind)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    return properties


def _will_properties(delay_s: int) -> Properties:
    """How long the broker waits before it publishes our will."""
    properties = _new(PacketTypes.WILLMESSAGE)
    properties.WillDelayInterval = delay_s
    return properties
