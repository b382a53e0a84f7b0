"""A site as README.md in mosquitto/ sets it up: the shipped files, with passwords, certificates and an ACL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tests.broker_setup import PLAIN, PRODUCTION, TLS, TLS_PASSWORD, Place, Setup, password_line, run_as
from tests.brokers import Broker, client_host
from tests.deployment.client import Client

from splitbus_gateway.certificates import Authority, Credential, create_authority, issue_node, issue_server

CLOUD: Final = "cloud.example.net"
USERS: Final = ("cam-a", "cam-b", "edge1", "cloud1", "gateway", "gateway2", "operator")
BRIDGE: Final = "bridge-home"
SITE: Final = "home"
TOPIC: Final = f"splitbus/v1/{SITE}"

Way: TypeAlias = Literal["plain", "password", "certificate"]
"""How a client comes in: with a password on this machine, with one over TLS, with a certificate."""

PORT_OF: Final[Mapping[Way, int]] = {"plain": PLAIN, "password": TLS_PASSWORD, "certificate": TLS}


def password_of(user: str) -> str:
    return f"word of {user}"


@dataclass(frozen=True)
class Site:
    """Everything that an owner makes once."""

    authority: Authority
    server: Credential
    bridge: Credential
    folder: Path

    def files(self, rules: str | None = None, bridge: str = "bridge.acl") -> dict[str, bytes]:
        """What lies beside mosquitto.conf on a broker; `rules` in place of the shipped ACL, which is generated."""
        allowed = (PRODUCTION / "acl").read_text() if rules is None else rules
        return {
            "splitbus.passwd": "".join(password_line(user, password_of(user)) for user in USERS).encode(),
            "splitbus.acl": (allowed + (PRODUCTION / bridge).read_text()).encode(),
            "ca.crt": self.authority.pem,
            "server.crt": self.server.certificate,
            "server.key": self.server.key,
            f"{BRIDGE}.crt": self.bridge.certificate,
            f"{BRIDGE}.key": self.bridge.key,
        }

    def setup(
        self,
        *more: str,
        peers: Mapping[str, Broker] | None = None,
        rules: str | None = None,
        bridge: str = "bridge.acl",
    ) -> Setup:
        """A broker with mosquitto.conf as shipped, `more` shipped files appended, and the rules of that bridge."""
        text = "\n".join((PRODUCTION / name).read_text() for name in ("mosquitto.conf", *more))
        return Setup(lambda place: placed(text, place), self.files(rules, bridge), peers or {})

    def client(self, user: str, **options: int) -> Client:
        return Client(user, password_of(user), **options)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def access(self, broker: Broker, user: str, way: Way) -> dict[str, str]:
        """How `user` reaches a broker, by the keys of the configuration files' [broker]."""
        scheme = "mqtt" if way == "plain" else "mqtts"
        url = {"url": f"{scheme}://{broker.host}:{broker.ports[PORT_OF[way]]}"}
        trust = {} if way == "plain" else {"cafile": str(self.ca)}
        if way == "certificate":
            return {**url, **trust, "certfile": f"{self.folder}/{user}.crt", "keyfile": f"{self.folder}/{user}.key"}
        return {**url, **trust, "username": user, "password_file": f"{self.folder}/{user}.word"}


def create_site(folder: Path) -> Site:
    """A new authority, a server certificate and one for each node."""
    now = datetime.now(UTC)
    authority = create_authority("home", now)
    server = issue_server(authority, [CLOUD, "localhost", client_host()], now)
    site = Site(authority, server, issue_node(authority, BRIDGE, now), folder)
    site.ca.write_bytes(authority.pem)
    for user in USERS:
        issue_node(authority, user, now).write(folder, user)
        (folder / f"{user}.word").write_text(f"{password_of(user)}\n")
    return site


def placed(text: str, place: Place) -> str:
    """The shipped configuration with its paths and listeners moved to where a test may have them."""
    moved = re.sub(r"/etc/mosquitto/(certs/)?", f"{place.folder}/", text)
    moved = moved.replace("/var/lib/mosquitto/", f"{place.folder}/")
    listeners = re.compile(r"^listener (\d+).*", re.MULTILINE)
    moved = listeners.sub(lambda match: f"listener {place.ports[int(match[1])]} {place.bind}", moved)
    return "\n".join([*run_as(), moved])
