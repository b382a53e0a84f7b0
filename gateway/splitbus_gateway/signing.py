"""The gateway's signature: its key, made at the first start, and the documents that nodes may believe."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from splitbus_gateway.certificates import write_private
from splitbus_runtime.trust import Trust
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.messages import Message
from splitbus_schemas.signature import attach, signed_bytes, write_key

KEY_FILE: Final = "signing.key"
PUBLIC_FILE: Final = "signing.pub"


class Signer:
    """Signs with a key, or with none: then documents stay as they are, and everything is taken for ours."""

    def __init__(self, key: Ed25519PrivateKey | None = None) -> None:
        self._key = key
        self.public = write_key(key.public_key().public_bytes_raw()) if key else ""
        self._own = Trust([self.public] if key else ())
        self._last: dict[str, tuple[bytes, bytes]] = {}
        """What was sealed last under each context, before and after: most of what is said is said again."""

    def seal(self, context: str, message: Message) -> bytes:
        """The message as it goes out under a topic, or as a SLICE. Raises PayloadTooLargeError."""
        body = message.to_json()
        if self._key is None:
            return body
        last, sealed = self._last.get(context, (b"", b""))
        if last != body:
            sealed = attach(body, self._key.sign(signed_bytes(context, body)))
            self._last[context] = body, sealed
        return sealed

    def open(self, context: str, payload: bytes) -> bytes:
        """What we sealed, as it was; raises SignatureError for what we did not."""
        return self._own.open(context, payload)


def load_signer(folder: Path) -> Signer:
    """The key in the state folder, made when there is none. Raises ConfigError for one that cannot be used."""
    path = folder / KEY_FILE
    if not path.exists():
        _make(path)
    signer = Signer(_read(path))
    _publish(folder / PUBLIC_FILE, signer.public)
    return signer


def _make(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    write_private(path, pem)


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others, who could sign plans: chmod 600 {path}")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{path} is no Ed25519 key in PEM: restore it, or remove it and give nodes the new public key"
        )
    return key


def _publish(path: Path, public: str) -> None:
    """The public key beside it, for whoever sets up nodes."""
    text = f"{public}\n"
    try:
        if not path.exists() or path.read_text() != text:
            part = path.with_suffix(".part")
            part.write_text(text)
            part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
