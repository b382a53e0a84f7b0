from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from splitbus_gateway.certificates import (
    AUTHORITY_LIFE,
    Authority,
    create_authority,
    issue_node,
    issue_server,
    load_authority,
    write_private,
)
from splitbus_schemas.errors import ConfigError

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return create_authority("home", NOW)


def policy(authority: Authority, at: datetime = NOW) -> PolicyBuilder:
    return PolicyBuilder().store(Store([authority.certificate])).time(at)


def test_a_server_certificate_verifies_for_its_names(authority: Authority) -> None:
    credential = issue_server(authority, ["gateway.home", "192.0.2.7", "::1"], NOW)
    certificate = x509.load_pem_x509_certificate(credential.certificate)
    policy(authority).build_server_verifier(x509.DNSName("gateway.home")).verify(certificate, [])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "::1"]


def test_a_server_certificate_fails_for_another_name(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(issue_server(authority, ["gateway.home"], NOW).certificate)
    with pytest.raises(x509.verification.VerificationError):
        policy(authority).build_server_verifier(x509.DNSName("other.home")).verify(certificate, [])


@pytest.mark.parametrize("node", ["cam-front", "cam_front_2", "a" * 64])
def test_a_node_certificate_names_the_node(authority: Authority, node: str) -> None:
    certificate = x509.load_pem_x509_certificate(issue_node(authority, node, NOW).certificate)
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == node
    policy(authority).build_client_verifier().verify(certificate, [])


def test_a_certificate_of_another_authority_fails(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(issue_node(create_authority("home", NOW), "cam", NOW).certificate)
    with pytest.raises(x509.verification.VerificationError):
        policy(authority).build_client_verifier().verify(certificate, [])


def test_a_clock_that_is_hours_behind_accepts_it(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(issue_node(authority, "cam", NOW).certificate)
    policy(authority, NOW - timedelta(hours=23)).build_client_verifier().verify(certificate, [])


def test_no_certificate_outlives_its_authority(authority: Authority) -> None:
    late = NOW + AUTHORITY_LIFE - timedelta(days=10)
    certificate = x509.load_pem_x509_certificate(issue_node(authority, "cam", late).certificate)
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
    with pytest.raises(ConfigError, match=r"ended on 2036-.*make a new authority"):
        issue_node(authority, "cam", NOW + AUTHORITY_LIFE + timedelta(days=1))


def test_files_are_private_load_again_and_openssl_takes_them(authority: Authority, tmp_path: Path) -> None:
    authority.credential.write(tmp_path, "ca")
    issue_node(load_authority(tmp_path), "cam", NOW).write(tmp_path / "nodes", "cam")
    files = [*tmp_path.glob("*.*"), *tmp_path.glob("nodes/*.*")]
    assert sorted(file.name for file in files) == ["ca.crt", "ca.key", "cam.crt", "cam.key"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    context = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    context.load_cert_chain(tmp_path / "nodes" / "cam.crt", tmp_path / "nodes" / "cam.key")


def test_nothing_is_overwritten(authority: Authority, tmp_path: Path) -> None:
    authority.credential.write(tmp_path, "ca")
    before = (tmp_path / "ca.key").read_bytes()
    with pytest.raises(ConfigError, match=r"ca\.key exists: move it away first"):
        create_authority("home", NOW).credential.write(tmp_path, "ca")
    assert (tmp_path / "ca.key").read_bytes() == before


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/x\.key cannot be written"):
        write_private(tmp_path / "file" / "x.key", b"")


def test_a_missing_or_broken_authority_is_named(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca\.crt is missing: make it with"):
        load_authority(tmp_path)
    authority.credential.write(tmp_path, "ca")
    (tmp_path / "ca.key").write_text("nonsense")
    with pytest.raises(ConfigError, match=r"ca\.key is no plain PEM file"):
        load_authority(tmp_path)
    (tmp_path / "ca.key").write_bytes(create_authority("home", NOW).credential.key)
    with pytest.raises(ConfigError, match=r"ca\.key is not the key of ca\.crt"):
        load_authority(tmp_path)


@pytest.mark.parametrize("names", [[], ["bad name"], ["a..b"], ["-a"], [""]])
def test_bad_server_names_are_refused(authority: Authority, names: list[str]) -> None:
    with pytest.raises(ConfigError, match="host name"):
        issue_server(authority, names, NOW)


@pytest.mark.parametrize("node", ["", "Cam", "a/b", "+", "a" * 65])
def test_bad_node_ids_are_refused(authority: Authority, node: str) -> None:
    with pytest.raises(ConfigError, match=r"node .* cannot stand in a topic"):
        issue_node(authority, node, NOW)


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_bad_authority_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="use 1 to 64"):
        create_authority(name, NOW)
