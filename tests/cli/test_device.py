"""`splitbus device`: files written whole and private, what is printed, and one line for a mistake."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from splitbus_gateway.signing import load_signer


def enroll(run: Run, folder: Path, *more: object) -> dict[str, str]:
    result = run("device", "enroll", "cam1", "--folder", folder, "--state-dir", folder / "state", "--json", *more)
    assert result.exit_code == 0, result.output
    printed: dict[str, str] = json.loads(result.stdout)
    return printed


def listed(run: Run, folder: Path) -> list[tuple[str, str, str]]:
    found = json.loads(run("device", "list", "--folder", folder, "--json").stdout)
    return [(known["device"], known["state"], known["credential"]) for known in found]


def test_a_password_is_printed_once_and_kept_nowhere(run: Run, tmp_path: Path) -> None:
    public = load_signer(tmp_path / "state").public
    given = enroll(run, tmp_path, "--broker", "mqtts://gateway.home:8884")
    assert len(given["password"]) >= 32
    assert (given["username"], given["broker"], given["gateway_key"]) == ("cam1", "mqtts://gateway.home:8884", public)
    assert given["reload"] == "now make the broker read its files: systemctl reload mosquitto"
    for name in ("splitbus.passwd", "splitbus.acl"):
        path = tmp_path / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert given["password"] not in path.read_text()
    assert listed(run, tmp_path) == [("cam1", "enrolled", "password")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["splitbus.acl", "splitbus.passwd", "state"]


def test_what_goes_on_the_camera_is_shown_as_a_program_has_it(run: Run, tmp_path: Path) -> None:
    result = run("device", "enroll", "cam1", "--folder", tmp_path, "--state-dir", tmp_path)
    assert "cam1 is enrolled by password; now make the broker read its files" in result.stdout
    assert 'BrokerSettings.of("mqtts://BROKER", username="cam1", password="' in result.stdout
    assert 'InferenceSession(model, broker=broker, device="cam1", site="home")' in result.stdout
    assert "and gateway_key=, the text in signing.pub" in result.stdout


def test_a_certificate_is_made_beside_the_authority(run: Run, tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    run("certs", "authority", "--folder", certs)
    given = enroll(run, tmp_path, "--certs", certs)
    assert given["certfile"] == str(certs / "cam1.crt")
    assert "password" not in given
    assert (tmp_path / "splitbus.passwd").read_text() == ""
    assert run("device", "revoke", "cam1", "--folder", tmp_path).exit_code == 0
    assert listed(run, tmp_path) == [("cam1", "revoked", "certificate")]
    again = run("device", "enroll", "cam1", "--folder", tmp_path)
    assert again.exit_code == 1
    assert "enrol it under another id" in again.stderr


def test_without_an_authority_nothing_is_written(run: Run, tmp_path: Path) -> None:
    result = run("device", "enroll", "cam1", "--folder", tmp_path, "--certs", tmp_path / "none")
    assert result.exit_code == 1
    assert "ca.crt is missing" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_list_for_people(run: Run, tmp_path: Path) -> None:
    assert run("device", "list", "--folder", tmp_path).stdout == "no device is enrolled: splitbus device enroll ID\n"
    enroll(run, tmp_path)
    revoked = run("device", "revoke", "cam2", "--folder", tmp_path)
    assert "cam2 was not enrolled here; its name is barred all the same" in revoked.stdout
    shown = run("device", "list", "--folder", tmp_path).stdout.splitlines()
    assert [line.split()[:3] for line in shown] == [
        ["device", "state", "credential"], ["cam1", "enrolled", "password"], ["cam2", "revoked", "certificate"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["revoke", "cam1", "--folder", "/nonexistent"], "/nonexistent cannot be read: No such file or directory"),
        (["enroll", "Cam 1", "--folder", "{}"], "'Cam 1' cannot stand in a topic"),
        (["enroll", "cam1", "--site", "a/b", "--folder", "{}"], "site 'a/b' cannot stand in a topic"),
        (["enroll", "cam1", "--folder", "{}", "--pid-file", "{}/none"], "the files are written, but"),
    ],
)
def test_a_mistake_is_one_line(run: Run, tmp_path: Path, arguments: list[str], complaint: str) -> None:
    result = run("device", *(argument.format(tmp_path) for argument in arguments))
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
