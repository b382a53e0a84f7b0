"""Keys that two nodes agree on in one message: RFC 9180 (HPKE) in mode Auth, with one suite.

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305: fast on cameras that have no instructions for AES. The
receiver learns that the holder of the sender's key sealed it; nobody else can read it, and no answer is waited for.
Curve, hash, key derivation and cipher are those of `cryptography`; here is only how the RFC puts them together.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from splitbus_schemas.errors import SealError

NONCE_BYTES: Final = 12
SECRET_BYTES: Final = 32

_MODE_AUTH: Final = b"\x02"
_KEM: Final = b"KEM" + (0x0020).to_bytes(2, "big")
_SUITE: Final = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x0020, 0x0001, 0x0003))


class Context:
    """One direction between two nodes. Thread-safe: who seals numbers the packets, and never twice alike."""

    def __init__(self, shared: bytes, info: bytes) -> None:
        context = (
            _MODE_AUTH
            + _extract(_SUITE, b"", b"psk_id_hash", b"")
            + _extract(_SUITE, b"", b"info_hash", info)
        )  # fmt: skip
        secret = _extract(_SUITE, shared, b"secret", b"")
        self._cipher = ChaCha20Poly1305(_expand(_SUITE, secret, b"key", context, SECRET_BYTES))
        self._base_nonce = int.from_bytes(_expand(_SUITE, secret, b"base_nonce", context, NONCE_BYTES), "big")

    def seal(self, number: int, associated: bytes, data: bytes | memoryview) -> bytes:
        """The sealed bytes and their tag."""
        return self._cipher.encrypt(self._nonce(number), data, associated)

    def open(self, number: int, associated: bytes, data: bytes | memoryview) -> bytes:
        """What was sealed. Raises SealError when a bit of it, or of what is associated with it, is another one."""
        try:
            return self._cipher.decrypt(self._nonce(number), data, associated)
        except InvalidTag:
            raise SealError("unopened", "it is not as its sender sealed it, or sealed by somebody else") from None

    def _nonce(self, number: int) -> bytes:
        return (self._base_nonce ^ number).to_bytes(NONCE_BYTES, "big")


class Secret:
    """A node's own key."""

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """A new one."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def of(cls, data: bytes) -> Self:
        """From its 32 bytes."""
        return cls(X25519PrivateKey.from_private_bytes(data))

    @property
    def data(self) -> bytes:
        """Its 32 bytes."""
        return self._key.private_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """X25519. Raises SealError for a public key that gives everybody the same."""
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise SealError("unopened", "its share of the key is none") from None

    def send_to(self, receiver: bytes, info: bytes, share: Secret | None = None) -> tuple[bytes, Context]:
        """A new session with the holder of the public key `receiver`: its share, to be sent along, and its context.

        `share` is made anew unless a test says otherwise. Raises SealError.
        """
        fresh = share or type(self).generate()
        agreed = fresh.agree(receiver) + self.agree(receiver)
        return fresh.public, Context(_shared(agreed, fresh.public + receiver + self.public), info)

    def receive_from(self, sender: bytes, share: bytes, info: bytes) -> Context:
        """The session that the holder of the public key `sender` began with `share`. Raises SealError."""
        agreed = self.agree(share) + self.agree(sender)
        return Context(_shared(agreed, share + self.public + sender), info)


def _shared(agreed: bytes, kem_context: bytes) -> bytes:
    return _expand(_KEM, _extract(_KEM, b"", b"eae_prk", agreed), b"shared_secret", kem_context, SECRET_BYTES)


def _extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    """LabeledExtract of RFC 9180, section 4; HKDF-Extract is one HMAC."""
    return hmac.digest(salt, b"HPKE-v1" + suite + label + key, hashlib.sha256)


def _expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand."""
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(hashes.SHA256(), length, labelled).derive(secret)
