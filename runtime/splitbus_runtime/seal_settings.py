"""From a node's settings to what it seals with: none, a list of keys to go by, or both ends of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from splitbus_runtime.keyring import Keyring
from splitbus_runtime.trust import Trust
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.seal_keys import read_secret

if TYPE_CHECKING:
    from splitbus_runtime.sealing import Sealer


def keyring_for(trust: Trust, *, site: str, node: str, folder: Path) -> Keyring | None:
    """The gateway's list of keys, for a node that knows the gateway by its signature."""
    return Keyring(trust, site=site, path=folder / f"keys-{node}.json") if trust.asks else None


def sealer_for(
    seal_key: str | os.PathLike[str] | None,
    keyring: Keyring | None,
    *,
    site: str,
    node: str,
    era: str | None = None,
) -> Sealer | None:
    """What seals and opens with the key in a setting; None without one. Raises ConfigError."""
    if seal_key is None or seal_key == "":
        return None
    if keyring is None:
        raise ConfigError(
            "seal_key is set, but gateway_key is not: without it whoever owns the broker could name keys of his own"
        )
    secret = read_secret(seal_key)
    try:
        from splitbus_runtime.hpke import Secret  # noqa: PLC0415 - only who seals needs cryptography
        from splitbus_runtime.sealing import Sealer  # noqa: PLC0415 - the same
    except ModuleNotFoundError:
        raise ConfigError("seal_key is set, and sealing needs cryptography: pip install 'splitbus[secure]'") from None
    return Sealer(Secret.of(secret), keyring, site=site, node=node, era=era)
