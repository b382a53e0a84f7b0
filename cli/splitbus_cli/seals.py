"""`splitbus seal`: the gateway's list of keys, which its daemon signs and publishes within a second."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from splitbus_cli.tables import add_row, new_table
from splitbus_gateway.key_book import (
    Role,
    editing,
    find,
    read_book,
    retired,
    revoked,
    with_key,
    with_policy,
    write_book,
)
from splitbus_gateway.signing import PUBLIC_FILE
from splitbus_runtime.hpke import Secret
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.seal_keys import key_id, read_public, write_secret


def list_new_key(state_dir: Path, node: str, role: Role, public: bytes | None = None) -> dict[str, Any]:
    """Put a key in the list, one of our making without `public`; gives what goes on the node. Raises ConfigError."""
    secret = Secret.generate() if public is None else None
    own = secret.public if secret is not None else public or b""
    with editing(state_dir) as keys:
        write_book(state_dir, with_key(keys, node, role, own, time.time()))
    given: dict[str, Any] = {"node": node, "role": role, "key": key_id(own)}
    if secret is not None:
        given["seal_key"] = write_secret(secret.data)
    signed_by = state_dir / PUBLIC_FILE
    if signed_by.exists():
        given["gateway_key"] = signed_by.read_text().strip()
    return given


def add_key(state_dir: Path, node: str, role: Role, *, public: str | None, as_json: bool) -> None:
    """List a key and print what to put on the node. Raises ConfigError."""
    given = list_new_key(state_dir, node, role, read_public(public) if public is not None else None)
    if as_json:
        print(json.dumps(given, indent=1))
        return
    print(f"{node} is listed as a {role} with key {given['key']}")
    if "seal_key" in given:
        print(f"\non {node} (this is shown once), in a file of its own, mode 0600:\n  {given['seal_key']}")
        print(f"and the file's name as {_setting(role)}")
    if "gateway_key" not in given:
        print("and gateway_key: the text in signing.pub of the gateway's state folder, once it has started")
    keys = read_book(state_dir)
    entry = find(keys, node) if keys is not None else None
    if entry is not None and len(entry.keys) > 1:
        print(f"\nits older key counts until: splitbus seal retire {node}")


def retire_key(state_dir: Path, node: str) -> None:
    """Drop the older of two keys. Raises ConfigError."""
    with editing(state_dir) as keys:
        changed = retired(keys, node, time.time())
        write_book(state_dir, changed)
    entry = find(changed, node)
    print(f"{node} has key {key_id(read_public(entry.keys[0])) if entry else '-'} alone")


def revoke_keys(state_dir: Path, node: str) -> None:
    """Drop a node's keys. Raises ConfigError."""
    with editing(state_dir) as keys:
        write_book(state_dir, revoked(keys, node, time.time()))
    print(f"{node} is not in the list any more: what it seals is not opened, and nothing is sealed for it")


def revoke_if_listed(state_dir: Path, node: str) -> bool:
    """The same for a node that may have no key; whether it had one. Raises ConfigError."""
    keys = read_book(state_dir)
    if keys is None or find(keys, node) is None:
        return False
    with editing(state_dir) as newest:
        write_book(state_dir, revoked(newest, node, time.time()))
    return True


def set_policy(state_dir: Path, *, required: bool) -> None:
    """Say whether frames have to be sealed. Raises ConfigError."""
    with editing(state_dir) as keys:
        if required and not any(entry.role == "worker" for entry in keys.nodes):
            raise ConfigError(
                "no worker has a key, so none could run a frame: splitbus seal add ID --worker comes first"
            )
        write_book(state_dir, with_policy(keys, time.time(), required=required))
    print("workers run sealed frames only" if required else "frames of cameras that are not listed may come in clear")


def list_keys(state_dir: Path, *, as_json: bool) -> None:
    """Print whose keys count. Raises ConfigError."""
    keys = read_book(state_dir)
    if as_json:
        print(json.dumps(keys.model_dump(exclude={"v", "signature"}) if keys is not None else None, indent=1))
    elif keys is None or not keys.nodes:
        print("no node has a key, and nothing is sealed: splitbus seal add ID --worker, then splitbus seal add ID")
    else:
        table = new_table(None, "node", "role", "keys, the newest first")
        for entry in keys.nodes:
            add_row(table, entry.node, entry.role, ", ".join(key_id(read_public(key)) for key in entry.keys))
        Console().print(table)
        print(f"epoch {keys.epoch}; {'workers run sealed frames only' if keys.required else 'mixed'}")


def _setting(role: Role) -> str:
    return (
        "seal_key= or $SPLITBUS_SEAL_KEY"
        if role == "device"
        else "--seal-key, seal_key in its TOML file, or $SPLITBUS_SEAL_KEY"
    )
