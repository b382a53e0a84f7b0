"""What a node believes: everything without a key, and with one nothing that was changed, moved or not signed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.packets import MESSAGES

from splitbus_gateway.signing import Signer
from splitbus_runtime.trust import MAX_KEYS, Trust
from splitbus_schemas.errors import ConfigError, SignatureError

TOPIC = "splitbus/v1/home/ctl/cam1/plan/m"
PLAN = MESSAGES["plan"]
GATEWAY, STRANGER = (Signer(Ed25519PrivateKey.generate()) for _ in range(2))
SIGNED = GATEWAY.seal(TOPIC, PLAN)
TRUST = Trust([GATEWAY.public])


def refused(trust: Trust, payload: bytes, context: str = TOPIC) -> str:
    """The counter under which it is refused."""
    with pytest.raises(SignatureError) as caught:
        trust.open(context, payload)
    return caught.value.counter


def test_without_a_key_everything_passes_as_it_is() -> None:
    for payload in (SIGNED, PLAN.to_json(), b"", b"\xff"):
        assert Trust().open(TOPIC, payload) == payload
    assert not Trust.of(None).asks
    assert not Trust.of("").asks


def test_what_the_gateway_signed_passes_and_loses_its_signature() -> None:
    assert TRUST.open(TOPIC, SIGNED) == PLAN.to_json()
    assert TRUST.open(TOPIC, b"") == b"", "an empty message removes, which leads to local answers and no further"


def test_unsigned_forged_and_moved_documents_are_refused() -> None:
    assert refused(TRUST, PLAN.to_json()) == "unsigned"
    assert refused(TRUST, STRANGER.seal(TOPIC, PLAN)) == "forged"
    assert refused(TRUST, SIGNED, TOPIC.replace("cam1", "cam2")) == "forged"
    assert refused(TRUST, SIGNED, TOPIC.replace("home", "away")) == "forged"


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 7))
def test_a_document_with_any_bit_changed_is_refused(position: int, bit: int) -> None:
    changed = bytearray(SIGNED)
    changed[position] ^= 1 << bit
    assert refused(TRUST, bytes(changed)) in {"unsigned", "forged"}


@given(st.binary(max_size=60), st.integers(0, len(SIGNED)))
def test_nothing_can_be_put_in(more: bytes, position: int) -> None:
    changed = SIGNED[:position] + more + SIGNED[position:]
    if more:
        assert refused(TRUST, changed) in {"unsigned", "forged"}


def test_several_keys_so_that_one_can_follow_another(tmp_path: Path) -> None:
    file = tmp_path / "gateway.pub"
    file.write_text(f"# the gateway and its stand-in\n{STRANGER.public}\n\n{GATEWAY.public}  # until June\n")
    for trust in (Trust.of(file), Trust.of(str(file)), Trust.of(f"{STRANGER.public}, {GATEWAY.public}")):
        assert trust.asks
        for signer in (GATEWAY, STRANGER):
            assert trust.open(TOPIC, signer.seal(TOPIC, PLAN)) == PLAN.to_json()


def test_a_setting_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pub"
    empty.write_text("# nothing\n")
    for setting, complaint in {
        str(tmp_path / "none.pub"): "none.pub cannot be read",
        str(empty): "holds no key: copy the gateway's signing.pub there",
        "ed25519:abc": "is no public key",
        ",".join([GATEWAY.public] * (MAX_KEYS + 1)): "the limit is 8: remove the old ones",
    }.items():
        with pytest.raises(ConfigError, match=complaint):
            Trust.of(setting)


def test_without_the_library_a_key_is_refused_in_one_sentence_and_no_key_is_fine() -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from splitbus_runtime.trust import Trust\nfrom splitbus_schemas.errors import ConfigError\n"
        f"Trust.of(None).open('t', b'x')\ntry:\n    Trust.of({GATEWAY.public!r})\nexcept ConfigError as error:\n"
        "    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "gateway_key is set, and checking signatures needs cryptography: pip install 'splitbus[secure]'\n"
    )
