"""Enrolling and revoking, from text to text: what comes in, what goes, and what stays as somebody wrote it."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.broker_setup import PRODUCTION

from splitbus_gateway.access import DENY_ALL, AccessFiles, Enrolment, enrol, new_files, revoke
from splitbus_schemas.acl import acl
from splitbus_schemas.errors import ConfigError

TODAY, LATER = date(2026, 11, 21), date(2026, 12, 24)
SALT = bytes(12)
SHIPPED = AccessFiles(
    "gateway:$7$101$x$y\n", (PRODUCTION / "acl").read_text() + (PRODUCTION / "bridge.acl").read_text()
)
ids = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True).filter(
    lambda name: name not in {"gateway", "operator", "edge1", "cloud1", "bridge-home"}
)


def enrolled(files: AccessFiles, device: str = "cam1", password: str | None = "word") -> AccessFiles:  # noqa: S107
    return enrol(files, device, TODAY, password=password, salt=SALT)


def test_a_new_device_has_a_password_and_the_rights_of_a_device() -> None:
    files = enrolled(new_files())
    assert files.passwords.startswith("cam1:$7$101$AAAAAAAAAAAAAAAA$")
    assert "word" not in files.passwords
    rules = files.rules.partition("# --- device (password, 2026-11-21)\n")[2]
    assert rules.splitlines() == acl(devices=["cam1"], operators=()).partition("# --- device\n")[2].splitlines()
    assert files.devices == (Enrolment("cam1", "enrolled", "password", "2026-11-21"),)


def test_with_a_certificate_there_is_no_password() -> None:
    files = enrolled(SHIPPED, password=None)
    assert files.passwords == SHIPPED.passwords
    assert files.devices == (Enrolment("cam1", "enrolled", "certificate", "2026-11-21"),)


def test_revoking_takes_the_password_and_denies_the_name() -> None:
    files = revoke(enrolled(SHIPPED), "cam1", LATER)
    assert files.passwords == SHIPPED.passwords
    assert files.rules == SHIPPED.rules + f"\n# --- revoked (password, 2026-12-24)\nuser cam1\n{DENY_ALL}\n"
    assert files.devices == (Enrolment("cam1", "revoked", "password", "2026-12-24"),)


def test_a_device_comes_back_with_a_new_password() -> None:
    files = revoke(enrolled(SHIPPED), "cam1", LATER)
    again = enrol(files, "cam1", LATER, password="new", salt=SALT)  # noqa: S106
    assert again.rules == enrolled(SHIPPED).rules.replace("2026-11-21", "2026-12-24")
    assert again.passwords != enrolled(SHIPPED).passwords
    assert DENY_ALL not in again.rules


@pytest.mark.parametrize("known", [True, False])
def test_a_revoked_certificate_never_becomes_good_again(known: bool) -> None:
    """Also that of a device that was never enrolled here: `splitbus certs client` may have made one."""
    files = revoke(enrolled(SHIPPED, password=None) if known else SHIPPED, "cam1", LATER)
    for password in ("word", None):
        with pytest.raises(ConfigError, match="its certificate would be good again: enrol it under another id"):
            enrolled(files, password=password)


@pytest.mark.parametrize(
    ("device", "complaint"),
    [
        ("gateway", "gateway is a user of this broker already"),
        ("operator", "operator is a user of this broker already"),
        ("edge1", "edge1 is a user of this broker already"),
        ("bridge-home", "bridge-home is a user of this broker already"),
        ("cam1", "cam1 is enrolled already: splitbus device revoke cam1 comes first"),
        ("Cam 2", "cannot stand in a topic"),
        ("+", "cannot stand in a topic"),
        ("cam2\nuser gateway", "cannot stand in a topic"),
        ("%u", "cannot stand in a topic"),
    ],
)
def test_names_that_are_taken_or_mean_harm_are_refused(device: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        enrolled(enrolled(SHIPPED), device)


def test_a_user_with_a_password_of_the_owners_is_not_overwritten() -> None:
    files = AccessFiles("cam9:$7$101$x$y\n", SHIPPED.rules)
    with pytest.raises(ConfigError, match="cam9 is a user of this broker already"):
        enrolled(files, "cam9")


def test_what_was_revoked_is_not_revoked_again() -> None:
    with pytest.raises(ConfigError, match="cam1 was revoked on 2026-12-24"):
        revoke(revoke(SHIPPED, "cam1", LATER), "cam1", LATER)


def test_what_the_owner_wrote_below_a_device_stays() -> None:
    files = enrolled(SHIPPED)
    own = "user dashboard\ntopic read splitbus/#\npattern read news/%u\n"
    files = AccessFiles(files.passwords, files.rules + own)
    assert own in enrolled(files, "cam2").rules
    assert own in revoke(files, "cam1", LATER).rules


@given(st.lists(ids, unique=True, max_size=6), st.data())
def test_others_are_left_as_they_are(devices: list[str], data: st.DataObject) -> None:
    files = SHIPPED
    for device in devices:
        files = enrolled(files, device, data.draw(st.sampled_from(["word", None])))
    assert [known.device for known in files.devices] == sorted(devices)
    for device in devices:
        files = revoke(files, device, LATER)
    assert files.passwords == SHIPPED.passwords
    assert files.rules.startswith(SHIPPED.rules)
    assert files.rules.count(DENY_ALL) == len(devices)
