"""`splitbus seal`: the list in the state folder, what is printed once, and one line for a mistake."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run

from splitbus_gateway.key_book import KEYS_FILE, find, read_book
from splitbus_gateway.signing import load_signer
from splitbus_runtime.hpke import Secret
from splitbus_schemas.seal_keys import key_id, read_secret, write_public


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def add(run: Run, state: Path, node: str, *more: object) -> dict[str, Any]:
    result = run("seal", "add", node, "--state-dir", state, "--json", *more)
    assert result.exit_code == 0, result.output
    given: dict[str, Any] = json.loads(result.stdout)
    return given


def keys_of(state: Path, node: str) -> list[str]:
    keys = read_book(state)
    entry = find(keys, node) if keys is not None else None
    return entry.keys if entry is not None else []


def test_a_secret_is_printed_once_and_kept_nowhere(run: Run, state: Path) -> None:
    public = load_signer(state).public
    given = add(run, state, "edge1", "--worker")
    secret = Secret.of(read_secret(given["seal_key"]))
    assert keys_of(state, "edge1") == [write_public(secret.public)]
    assert (given["role"], given["key"], given["gateway_key"]) == ("worker", key_id(secret.public), public)
    assert not any(given["seal_key"] in path.read_text() for path in state.iterdir())
    assert stat.S_IMODE((state / KEYS_FILE).stat().st_mode) == 0o644


def test_for_people(run: Run, state: Path) -> None:
    result = run("seal", "add", "cam1", "--state-dir", state)
    assert "cam1 is listed as a device with key " in result.stdout
    assert "(this is shown once), in a file of its own, mode 0600:\n  x25519-secret:" in result.stdout
    assert "seal_key= or $SPLITBUS_SEAL_KEY" in result.stdout
    assert "its older key" not in result.stdout
    again = run("seal", "add", "cam1", "--state-dir", state)
    assert "its older key counts until: splitbus seal retire cam1" in again.stdout


def test_a_key_that_the_node_made_itself_is_listed_as_it_is(run: Run, state: Path) -> None:
    public = write_public(Secret.generate().public)
    given = add(run, state, "cam1", "--public", public)
    assert keys_of(state, "cam1") == [public]
    assert "seal_key" not in given
    wrong = run("seal", "add", "cam2", "--public", "x25519:AAAA", "--state-dir", state)
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "is no public key to seal for" in wrong.stderr


def test_the_life_of_a_key(run: Run, state: Path) -> None:
    add(run, state, "edge1", "--worker")
    add(run, state, "edge1", "--worker")
    newest = keys_of(state, "edge1")[0]
    listed = json.loads(run("seal", "list", "--state-dir", state, "--json").stdout)
    assert [len(entry["keys"]) for entry in listed["nodes"]] == [2]
    assert "edge1" in run("seal", "list", "--state-dir", state).stdout
    assert run("seal", "retire", "edge1", "--state-dir", state).exit_code == 0
    assert keys_of(state, "edge1") == [newest]
    assert run("seal", "policy", "required", "--state-dir", state).exit_code == 0
    keys = read_book(state)
    assert keys is not None
    assert keys.required
    assert run("seal", "policy", "mixed", "--state-dir", state).stdout.startswith(
        "frames of cameras that are not listed"
    )
    assert "is not in the list any more" in run("seal", "revoke", "edge1", "--state-dir", state).stdout
    assert keys_of(state, "edge1") == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("retire", "edge1"), "edge1 is not in the list of keys"),
        (("revoke", "edge1"), "edge1 is not in the list of keys"),
        (("policy", "required"), "no worker has a key"),
        (("add", "Edge 1"), "cannot stand in a topic"),
    ],
)
def test_mistakes_take_one_line(run: Run, state: Path, arguments: tuple[str, ...], complaint: str) -> None:
    result = run("seal", *arguments, "--state-dir", state)
    assert (result.exit_code, result.stdout) == (1, "")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_folder_is_said_with_the_option(run: Run, tmp_path: Path) -> None:
    result = run("seal", "add", "cam1", "--state-dir", tmp_path / "nowhere")
    assert "name the gateway's with --state-dir" in result.stderr
    assert "nothing is sealed" in run("seal", "list", "--state-dir", tmp_path / "nowhere").stdout


def test_a_device_is_enrolled_with_its_key_and_revoked_with_it(run: Run, state: Path, tmp_path: Path) -> None:
    options = ("--folder", tmp_path, "--state-dir", state)
    result = run("device", "enroll", "cam1", *options, "--seal", "--json")
    given = json.loads(result.stdout)
    assert keys_of(state, "cam1") == [write_public(Secret.of(read_secret(given["seal_key"])).public)]
    shown = run("device", "enroll", "cam2", *options, "--seal").stdout
    assert 'device="cam2", site="home", seal_key="x25519-secret:' in shown
    revoked = run("device", "revoke", "cam1", *options)
    assert "its seal keys are off the gateway's list" in revoked.stdout
    assert keys_of(state, "cam1") == []
    assert len(keys_of(state, "cam2")) == 1
