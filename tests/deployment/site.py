"""A site as README.md in mosquitto/ sets it up: the shipped files, with passwords, certificates and an ACL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.broker_setup import PRODUCTION, Place, Setup, password_line, run_as
from tests.brokers import Broker, client_host
from tests.deployment.client import Client

from splitbus_gateway.certificates import Authority, Credential, create_authority, issue_node, issue_server
from splitbus_schemas.acl import acl

CLOUD = "cloud.example.net"
PASSWORDS = {user: f"word of {user}" for user in ("cam-a", "cam-b", "edge1", "cloud1", "gateway", "operator")}
NODES = ("cam-a", "cam-b", "bridge-home")
TOPIC = "splitbus/v1/home"


@dataclass(frozen=True)
class Site:
    """Everything that an owner makes once."""

    authority: Authority
    server: Credential
    nodes: Mapping[str, Credential]
    folder: Path

    def files(self) -> dict[str, bytes]:
        """What lies beside mosquitto.conf on a broker."""
        bridge = self.nodes["bridge-home"]
        return {
            "splitbus.passwd": "".join(password_line(*pair) for pair in PASSWORDS.items()).encode(),
            "splitbus.acl": (acl() + (PRODUCTION / "bridge.acl").read_text()).encode(),
            "ca.crt": self.authority.pem,
            "server.crt": self.server.certificate,
            "server.key": self.server.key,
            "bridge-home.crt": bridge.certificate,
            "bridge-home.key": bridge.key,
        }

    def setup(self, *more: str, peers: Mapping[str, Broker] | None = None) -> Setup:
        """A broker with mosquitto.conf as shipped, and `more` shipped files appended."""
        text = "\n".join((PRODUCTION / name).read_text() for name in ("mosquitto.conf", *more))
        return Setup(lambda place: placed(text, place), self.files(), peers or {})

    def client(self, user: str, **options: int) -> Client:
        return Client(user, PASSWORDS[user], **options)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"


def create_site(folder: Path) -> Site:
    """A new authority, a server certificate and one for each node."""
    now = datetime.now(UTC)
    authority = create_authority("home", now)
    site = Site(
        authority,
        issue_server(authority, [CLOUD, "localhost", client_host()], now),
        {node: issue_node(authority, node, now) for node in NODES},
        folder,
    )
    (folder / "ca.crt").write_bytes(authority.pem)
    for node, credential in site.nodes.items():
        credential.write(folder, node)
    return site


def placed(text: str, place: Place) -> str:
    """The shipped configuration with its paths and listeners moved to where a test may have them."""
    moved = re.sub(r"/etc/mosquitto/(certs/)?", f"{place.folder}/", text)
    moved = moved.replace("/var/lib/mosquitto/", f"{place.folder}/")
    listeners = re.compile(r"^listener (\d+).*", re.MULTILINE)
    moved = listeners.sub(lambda match: f"listener {place.ports[int(match[1])]} {place.bind}", moved)
    return "\n".join([*run_as(), moved])
