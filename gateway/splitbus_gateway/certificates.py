"""Certificates for brokers and nodes, from an authority of one's own. The clock is passed in; files are private."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import check_id

AUTHORITY: Final = "ca"
"""The stem of the authority's files: ca.crt, ca.key."""

AUTHORITY_LIFE: Final = timedelta(days=3650)
LEAF_LIFE: Final = timedelta(days=825)
"""The longest that Apple's and most other TLS stacks accept of a server."""

CLOCK_SLACK: Final = timedelta(days=1)
"""Certificates begin a day ago: clocks of devices may be hours behind."""

MAX_AUTHORITY_NAME: Final = 64
"""What X.509 allows for a common name."""

_T = TypeVar("_T")
_HOST = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True)
class Credential:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, stem: str) -> None:
        """Write `stem`.crt and `stem`.key, mode 0600. ConfigError when one exists or the folder cannot be written."""
        write_private(folder / f"{stem}.key", self.key)
        write_private(folder / f"{stem}.crt", self.certificate)


@dataclass(frozen=True)
class Authority:
    """Who vouches for a site's broker and nodes."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def credential(self) -> Credential:
        return _pem(self.certificate, self.key)

    @property
    def pem(self) -> bytes:
        """The certificate alone: what brokers and nodes are given to trust."""
        return self.credential.certificate


def create_authority(name: str, now: datetime) -> Authority:
    """A new authority for ten years; `now` is aware. ConfigError for a name that does not fit a certificate."""
    if not 0 < len(name) <= MAX_AUTHORITY_NAME:
        raise ConfigError(f"authority name {name!r} has {len(name)} characters: use 1 to {MAX_AUTHORITY_NAME}")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, subject, key.public_key(), now, now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def load_authority(folder: Path) -> Authority:
    """The authority kept in `folder`. ConfigError when a file is missing, unreadable, or not the other's match."""
    certificate = _parse(folder / f"{AUTHORITY}.crt", x509.load_pem_x509_certificate)
    key = _parse(folder / f"{AUTHORITY}.key", lambda data: serialization.load_pem_private_key(data, password=None))
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"{folder / AUTHORITY}.key is not the key of {AUTHORITY}.crt beside it: restore the pair")
    return Authority(certificate, key)


def issue_server(authority: Authority, names: Sequence[str], now: datetime) -> Credential:
    """A broker's certificate for the host names and addresses by which nodes reach it. ConfigError for a bad one."""
    if not names:
        raise ConfigError("a server certificate needs a host name or address: the one that nodes connect to")
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    return _issue(authority, names[0][:MAX_AUTHORITY_NAME], ExtendedKeyUsageOID.SERVER_AUTH, alternatives, now)


def issue_node(authority: Authority, node: str, now: datetime) -> Credential:
    """A node's certificate; its common name is the node id, which the broker takes for the user name."""
    check_id("node", node)
    alternatives = x509.SubjectAlternativeName([x509.DNSName(node.replace("_", "-"))])
    return _issue(authority, node, ExtendedKeyUsageOID.CLIENT_AUTH, alternatives, now)


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read. ConfigError when it exists or cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if path.exists():
            raise ConfigError(f"{path} exists: move it away first, what was given out may depend on it") from None
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _issue(
    authority: Authority,
    common_name: str,
    usage: x509.ObjectIdentifier,
    alternatives: x509.SubjectAlternativeName,
    now: datetime,
) -> Credential:
    end = min(now + LEAF_LIFE, authority.certificate.not_valid_after_utc)
    if end <= now:
        raise ConfigError(f"the authority's certificate ended on {end:%Y-%m-%d}: make a new authority")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        _builder(subject, authority.certificate.subject, key.public_key(), now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .add_extension(alternatives, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return _pem(certificate, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not _HOST.fullmatch(name):
            raise ConfigError(f"server name {name!r} is neither a host name nor an address") from None
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Credential:
    return Credential(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _parse(path: Path, load: Callable[[bytes], _T]) -> _T:
    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: make it with `splitbus certs authority`, or name its folder") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: the key is encrypted
        raise ConfigError(f"{path} is no plain PEM file of an authority: {error}") from error
