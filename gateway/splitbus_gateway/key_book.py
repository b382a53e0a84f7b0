"""The gateway's list of keys: who seals and opens. From list to list, the clock passed in; and its file.

An epoch is the time of the change in seconds, or one more than the last: so a gateway that lost its folder begins
above what nodes have kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

from splitbus_runtime.whole_file import write_whole
from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.ids import check_id
from splitbus_schemas.limits import MAX_SEAL_KEYS, MAX_SEALED_NODES
from splitbus_schemas.messages import KeyList, NodeKeys
from splitbus_schemas.seal_keys import read_public, write_public

Role: TypeAlias = Literal["device", "worker"]

KEYS_FILE: Final = "keys.json"


def find(keys: KeyList, node: str) -> NodeKeys | None:
    """The node's entry, if there is one."""
    return next((entry for entry in keys.nodes if entry.node == node), None)


def with_key(keys: KeyList, node: str, role: Role, public: bytes, now_s: float) -> KeyList:
    """The list with a key more: the node's first, or its next one, beside which the last one still counts.

    Raises ConfigError.
    """
    check_id("node", node)
    known = find(keys, node)
    text = write_public(public)
    holder = next((entry.node for entry in keys.nodes if text in entry.keys), None)
    if holder is not None:
        raise ConfigError(f"{holder} has that key already: each node needs one of its own")
    if known is not None and known.role != role:
        raise ConfigError(f"{node} is listed as a {known.role}: splitbus seal revoke {node} comes first")
    if known is not None and len(known.keys) >= MAX_SEAL_KEYS:
        raise ConfigError(f"{node} has {MAX_SEAL_KEYS} keys already: splitbus seal retire {node} drops the older one")
    if known is None and len(keys.nodes) >= MAX_SEALED_NODES:
        raise ConfigError(f"the list holds {MAX_SEALED_NODES} nodes, its limit: revoke those that are gone")
    entry = NodeKeys(node=node, role=role, keys=[text, *(known.keys if known is not None else [])])
    return _changed(keys, [*_others(keys, node), entry], now_s)


def retired(keys: KeyList, node: str, now_s: float) -> KeyList:
    """The list with the newest key of the node alone. Raises ConfigError."""
    known = _need(keys, node)
    if len(known.keys) == 1:
        raise ConfigError(f"{node} has one key only: splitbus seal add {node} makes its next one")
    return _changed(keys, [*_others(keys, node), known.model_copy(update={"keys": known.keys[:1]})], now_s)


def revoked(keys: KeyList, node: str, now_s: float) -> KeyList:
    """The list without the node: nothing that it seals is opened, and nothing is sealed for it. Raises ConfigError."""
    _need(keys, node)
    return _changed(keys, _others(keys, node), now_s)


def with_policy(keys: KeyList, now_s: float, *, required: bool) -> KeyList:
    """The list that says whether workers run frames that are not sealed."""
    return keys if keys.required == required else _changed(keys.model_copy(update={"required": required}), None, now_s)


def _need(keys: KeyList, node: str) -> NodeKeys:
    known = find(keys, node)
    if known is None:
        raise ConfigError(f"{node} is not in the list of keys: splitbus seal list shows who is")
    return known


def _others(keys: KeyList, node: str) -> list[NodeKeys]:
    return [entry for entry in keys.nodes if entry.node != node]


def _changed(keys: KeyList, nodes: list[NodeKeys] | None, now_s: float) -> KeyList:
    entries = keys.nodes if nodes is None else sorted(nodes, key=lambda entry: entry.node)
    return keys.model_copy(update={"nodes": entries, "epoch": max(keys.epoch + 1, int(now_s))})


def read_book(folder: Path) -> KeyList | None:
    """The list in a state folder; None when none was ever made. Raises ConfigError for one that cannot be read."""
    path = folder / KEYS_FILE
    try:
        keys = KeyList.from_json(path.read_bytes())
        for entry in keys.nodes:
            for text in entry.keys:
                read_public(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except DecodeError as error:
        raise ConfigError(f"{path} is no list of keys ({error}): restore it") from None
    return keys


@contextlib.contextmanager
def editing(folder: Path) -> Iterator[KeyList]:
    """The list as it is; two that change it at once wait for each other. Raises ConfigError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}; name the gateway's with --state-dir") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield read_book(folder) or KeyList(epoch=0)
    finally:
        os.close(descriptor)


def write_book(folder: Path, keys: KeyList) -> None:
    """Put the list in place, whole at any time. Raises ConfigError."""
    path = folder / KEYS_FILE
    try:
        # It holds no secret, and the gateway may run as another user than who runs the command.
        write_whole(path, keys.to_json(), mode=0o644)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; run this as the gateway's user") from None
