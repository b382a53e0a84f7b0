"""Who may use the broker, as its two files tell: enrolling and revoking a device, from text to text. Pure.

The ACL file is the one record: a device's rules stand under a line such as `# --- device (password, 2026-11-21)`, a
revoked one's under `# --- revoked (...)` with a rule that denies everything. What else the files hold stays as it is.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal, TypeAlias

from splitbus_schemas.acl import acl, user_rules
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import check_id

Credential: TypeAlias = Literal["password", "certificate", "unknown"]
State: TypeAlias = Literal["enrolled", "revoked"]

SALT_BYTES: Final = 12
ROUNDS: Final = 101
"""What mosquitto_passwd 2.0 takes; our passwords are random, and nothing is gained by guessing slowly."""

DENY_ALL: Final = "topic deny #"

_BLOCK: Final = re.compile(r"^(?=# --- )", re.MULTILINE)
_TITLE: Final = re.compile(r"# --- (device|revoked)(?: \((password|certificate), (\d{4}-\d\d-\d\d)\))?$", re.MULTILINE)
_FOR_OTHERS: Final = re.compile(r"^(?:user|pattern)[ \t]", re.MULTILINE)
_USER: Final = re.compile(r"^user[ \t]+(.*?)[ \t\r]*$", re.MULTILINE)


@dataclass(frozen=True)
class Enrolment:
    """A device as the ACL file has it."""

    device: str
    state: State
    credential: Credential
    since: str
    """When it was enrolled or revoked, ISO 8601; empty when somebody wrote the rules by hand."""


@dataclass(frozen=True)
class AccessFiles:
    """The text of the broker's password file and of its ACL file."""

    passwords: str
    rules: str

    @property
    def devices(self) -> tuple[Enrolment, ...]:
        """Enrolled and revoked devices, by id."""
        found = [known for block in _blocks(self.rules) if (known := _enrolment(block))]
        return tuple(sorted(found, key=lambda known: known.device))

    def find(self, device: str) -> Enrolment | None:
        """The device's entry, if there is one."""
        return next((known for known in self.devices if known.device == device), None)


def new_files() -> AccessFiles:
    """For a broker that has none yet: the generated rules, by which nobody but enrolled devices sends jobs."""
    return AccessFiles("", acl(devices=()))


def enrol(
    files: AccessFiles, device: str, today: date, *, password: str | None, salt: bytes, site: str = "+"
) -> AccessFiles:
    """The files with the device in them, by password or, without one, by a certificate that carries its name.

    Raises ConfigError for a name that is taken, and for one whose revoked certificate would be good again.
    """
    check_id("device", device)
    known = files.find(device)
    if known is not None and known.state == "enrolled":
        raise ConfigError(f"{device} is enrolled already: splitbus device revoke {device} comes first")
    if known is not None and known.credential != "password":
        raise ConfigError(f"{device} was revoked, and its certificate would be good again: enrol it under another id")
    if known is None and device in {*_users(files.rules), *_users_with_password(files.passwords)}:
        raise ConfigError(f"{device} is a user of this broker already: choose another id, or revoke it first")
    title = _title("device", "password" if password is not None else "certificate", today)
    rules = [_without(files.rules, device), *user_rules("device", device, site=site, title=title)]
    passwords = _without_password(files.passwords, device)
    if password is not None:
        passwords += password_line(device, password, salt)
    return AccessFiles(passwords, "\n".join([*rules, ""]))


def revoke(files: AccessFiles, device: str, today: date) -> AccessFiles:
    """The files without the device's password, and with a rule against its name, which its certificate has too.

    Raises ConfigError for one that is revoked already.
    """
    check_id("device", device)
    known = files.find(device)
    if known is not None and known.state == "revoked":
        raise ConfigError(f"{device} was revoked on {known.since}: nothing is left to revoke")
    held = known.credential if known is not None else "unknown"
    rules = [_without(files.rules, device), f"# --- {_title('revoked', held, today)}", f"user {device}", DENY_ALL, ""]
    return AccessFiles(_without_password(files.passwords, device), "\n".join(rules))


def password_line(user: str, password: str, salt: bytes) -> str:
    """A line of Mosquitto's password file: PBKDF2 with SHA-512, as mosquitto_passwd writes it."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return f"{user}:$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


def _title(what: str, credential: Credential, today: date) -> str:
    """`unknown` is written as a certificate: it may be one, and is treated so."""
    return f"{what} ({'password' if credential == 'password' else 'certificate'}, {today.isoformat()})"


def _blocks(rules: str) -> list[str]:
    """The file in pieces, each from one heading to the next."""
    return _BLOCK.split(rules)


def _enrolment(block: str) -> Enrolment | None:
    title, user = _TITLE.match(block), _USER.search(block)
    if title is None or user is None:
        return None
    state: State = "revoked" if title[1] == "revoked" else "enrolled"
    credential: Credential = "password" if title[2] == "password" else "certificate" if title[2] else "unknown"
    return Enrolment(user[1], state, credential, title[3] or "")


def _without(rules: str, device: str) -> str:
    """The rules without the device's own block, ending with one line's end."""
    text = "".join(_others(block, device) for block in _blocks(rules))
    return f"{text.rstrip()}\n" if text else ""


def _others(block: str, device: str) -> str:
    """What of a block is not the device's: all, or what somebody wrote below it for other users."""
    known = _enrolment(block)
    if known is None or known.device != device:
        return block
    own = _USER.search(block)
    following = _FOR_OTHERS.search(block, own.end()) if own else None
    return block[following.start() :] if following else ""


def _users(rules: str) -> Iterator[str]:
    return (match[1] for match in _USER.finditer(rules))


def _users_with_password(passwords: str) -> Iterator[str]:
    return (line.partition(":")[0] for line in passwords.splitlines() if line)


def _without_password(passwords: str, device: str) -> str:
    kept = [line for line in passwords.splitlines() if line.partition(":")[0] != device]
    return "".join(f"{line}\n" for line in kept)
