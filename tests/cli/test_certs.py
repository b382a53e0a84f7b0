"""`splitbus certs`: files that belong together, and refusals."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509
from tests.cli.conftest import Run


def test_authority_server_and_client(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    for command in (("authority", "home"), ("server", "gateway.home", "192.0.2.7"), ("client", "cam1")):
        result = run("certs", *command, "--folder", folder)
        assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == [
        "ca.crt", "ca.key", "cam1.crt", "cam1.key", "server.crt", "server.key"
    ]  # fmt: skip
    authority, server = (x509.load_pem_x509_certificate((folder / f"{n}.crt").read_bytes()) for n in ("ca", "server"))
    server.verify_directly_issued_by(authority)
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "cam1.crt", folder / "cam1.key")


def test_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    assert run("certs", "authority", "--folder", tmp_path).exit_code == 0
    before = (tmp_path / "ca.key").read_bytes()
    again = run("certs", "authority", "--folder", tmp_path)
    assert (again.exit_code, "ca.key exists" in again.stderr) == (1, True)
    assert (tmp_path / "ca.key").read_bytes() == before


def test_without_an_authority(run: Run, tmp_path: Path) -> None:
    result = run("certs", "client", "cam1", "--folder", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "ca.crt is missing: make it with `splitbus certs authority`" in result.stderr


def test_a_node_that_cannot_stand_in_a_topic(run: Run, tmp_path: Path) -> None:
    run("certs", "authority", "--folder", tmp_path)
    result = run("certs", "client", "Cam 1", "--folder", tmp_path)
    assert result.exit_code == 1
    assert "'Cam 1' cannot stand in a topic" in result.stderr
