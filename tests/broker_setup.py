"""What a test broker is to be: its configuration, made from the production one, and the files beside it."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.brokers import Broker

PRODUCTION = Path(__file__).parent.parent / "mosquitto"
PLAIN, TLS, TLS_PASSWORD = PORTS = (1883, 8883, 8884)

SHARED_SETTINGS = (
    "set_tcp_nodelay",
    "max_packet_size",
    "max_inflight_messages",
    "max_queued_messages",
    "max_queued_bytes",
    "queue_qos0_messages",
    "max_keepalive",
    "memory_limit",
    "sys_interval",
)
"""What every test broker takes from the production configuration, so that tests meet the limits that users meet."""


@dataclass(frozen=True)
class Place:
    """Where a broker finds itself: the folder of its files, the address to bind, and its ports by well-known port."""

    folder: str
    bind: str
    ports: Mapping[int, int]


@dataclass(frozen=True)
class ServerTls:
    """PEM texts for a TLS listener on port 8883; `require_certificate` makes the client's CN its user name."""

    ca: bytes
    certificate: bytes
    key: bytes
    require_certificate: bool = True


@dataclass(frozen=True)
class Setup:
    """A broker to be: its configuration as a function of its place, and the files beside it."""

    config: Callable[[Place], str]
    files: Mapping[str, bytes]
    peers: Mapping[str, Broker] = field(default_factory=dict)
    """Other brokers of the same kind, by the host name that the configuration has for them."""


def simple_setup(
    *lines: str,
    users: Mapping[str, str] | None = None,
    acl: str | None = None,
    tls: ServerTls | None = None,
) -> Setup:
    """The production limits, a plain listener, and what a test asks for."""
    files: dict[str, bytes] = {}
    if users is not None:
        files["passwords"] = "".join(password_line(user, word) for user, word in users.items()).encode()
    if acl is not None:
        files["acl"] = acl.encode()
    if tls is not None:
        files |= {"ca.crt": tls.ca, "server.crt": tls.certificate, "server.key": tls.key}

    def config(place: Place) -> str:
        return "\n".join(
            [
                *run_as(),
                *production_settings(),
                f"allow_anonymous {'false' if users is not None else 'true'}",
                *([f"password_file {place.folder}/passwords"] if users is not None else []),
                *([f"acl_file {place.folder}/acl"] if acl is not None else []),
                *(tls_listener(tls, place) if tls is not None else []),
                f"listener {place.ports[PLAIN]} {place.bind}",
                *lines,
                "",
            ]
        )

    return Setup(config, files)


def tls_listener(tls: ServerTls, place: Place) -> list[str]:
    wants = str(tls.require_certificate).lower()
    return [
        f"listener {place.ports[TLS]} {place.bind}",
        f"cafile {place.folder}/ca.crt",
        f"certfile {place.folder}/server.crt",
        f"keyfile {place.folder}/server.key",
        f"require_certificate {wants}",
        f"use_identity_as_username {wants}",
    ]


def run_as() -> list[str]:
    """Started by root, Mosquitto becomes a user who cannot read a test's private files: stay who we are."""
    return ["user root"]


@functools.cache
def production_settings() -> tuple[str, ...]:
    """The lines of mosquitto/mosquitto.conf that every test broker shares."""
    lines = (PRODUCTION / "mosquitto.conf").read_text().splitlines()
    return tuple(line for line in lines if line.split(" ", 1)[0] in SHARED_SETTINGS)


def password_line(user: str, password: str) -> str:
    """One line of a Mosquitto password file, as `mosquitto_passwd` writes it (PBKDF2, SHA-512)."""
    salt, rounds = os.urandom(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"{user}:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
