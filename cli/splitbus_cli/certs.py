"""`splitbus certs`: an authority of one's own, and certificates for the broker and for each node."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from splitbus_gateway.certificates import AUTHORITY, create_authority, issue_node, issue_server, load_authority


def make_authority(folder: Path, name: str) -> None:
    """Write ca.crt and ca.key. Raises ConfigError, also when they exist."""
    create_authority(name, datetime.now(UTC)).credential.write(folder, AUTHORITY)
    stem = folder / AUTHORITY
    print(f"wrote {stem}.crt, which brokers and nodes trust, and {stem}.key: keep that offline")


def make_server(folder: Path, names: Sequence[str]) -> None:
    """Write server.crt and server.key for the broker. Raises ConfigError."""
    issue_server(load_authority(folder), names, datetime.now(UTC)).write(folder, "server")
    print(f"wrote {folder / 'server'}.crt and .key for {', '.join(names)}: mosquitto's certfile and keyfile")


def make_client(folder: Path, node: str) -> None:
    """Write <node>.crt and <node>.key. Raises ConfigError."""
    issue_node(load_authority(folder), node, datetime.now(UTC)).write(folder, node)
    print(
        f"wrote {folder / node}.crt and .key: give them to {node} with {AUTHORITY}.crt, "
        f"as --certfile, --keyfile and --cafile"
    )
