"""`splitbus device`: credentials and rights at the broker, in its files, and the signal that makes it read them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import secrets
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from rich.console import Console

from splitbus_cli.seals import list_new_key, revoke_if_listed
from splitbus_cli.tables import add_row, new_table
from splitbus_gateway.access import SALT_BYTES, AccessFiles, enrol, new_files, revoke
from splitbus_gateway.certificates import AUTHORITY, issue_node, load_authority
from splitbus_gateway.signing import PUBLIC_FILE
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import check_id

PASSWORDS: Final = "splitbus.passwd"
RULES: Final = "splitbus.acl"
BROKER_USER: Final = "mosquitto"
PASSWORD_BYTES: Final = 24
RELOAD: Final = "now make the broker read its files: systemctl reload mosquitto"


@dataclass(frozen=True)
class BrokerFolder:
    """Where the broker's files are, and, when it is to be told, the file that names its process."""

    folder: Path
    pid_file: Path | None = None

    @contextlib.contextmanager
    def editing(self) -> Iterator[AccessFiles]:
        """The files as they are; two that enrol at once wait for each other. Raises ConfigError."""
        try:
            descriptor = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise ConfigError(
                f"{self.folder} cannot be read: {error.strerror}; name the folder with --folder"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self.read()
        finally:
            os.close(descriptor)

    def read(self) -> AccessFiles:
        """Both files; those of a new broker when there is no ACL file. Raises ConfigError."""
        rules = _read(self.folder / RULES)
        return AccessFiles(_read(self.folder / PASSWORDS) or "", new_files().rules if rules is None else rules)

    def write(self, files: AccessFiles) -> str:
        """Put both in place, rights first, and tell the broker. Gives what was or is to be done. Raises ConfigError."""
        for name, text in ((RULES, files.rules), (PASSWORDS, files.passwords)):
            _replace(self.folder / name, text)
        return _reload(self.pid_file) if self.pid_file is not None else RELOAD


def enroll_device(
    broker: BrokerFolder,
    device: str,
    *,
    certs: Path | None,
    url: str,
    state_dir: Path,
    site: str,
    seal: bool = False,
    as_json: bool,
) -> None:
    """Enter a device and print what to put on it. Raises ConfigError."""
    check_id("site", site)
    password = secrets.token_urlsafe(PASSWORD_BYTES) if certs is None else None
    now = datetime.now(UTC)
    with broker.editing() as files:
        entered = enrol(
            files, device, now.date(), password=password, salt=secrets.token_bytes(SALT_BYTES), site=site
        )  # fmt: skip
        given: dict[str, Any] = {"device": device, "site": site, "broker": url}
        if certs is not None:
            issue_node(load_authority(certs), device, now).write(certs, device)
            given |= {"certfile": f"{certs / device}.crt", "keyfile": f"{certs / device}.key"}
            given["cafile"] = f"{certs / AUTHORITY}.crt"
        else:
            given |= {"username": device, "password": password}
        if seal:
            given["seal_key"] = list_new_key(state_dir, device, "device")["seal_key"]
        done = broker.write(entered)
    public = state_dir / PUBLIC_FILE
    if public.exists():
        given["gateway_key"] = public.read_text().strip()
    if as_json:
        print(json.dumps(given | {"reload": done}, indent=1))
        return
    print(f"{device} is enrolled by {'password' if password else 'certificate'}; {done}")
    print("\n".join(_instructions(given)))


def revoke_device(broker: BrokerFolder, device: str, *, state_dir: Path) -> None:
    """Take a device's credentials, rights and seal keys. Raises ConfigError."""
    with broker.editing() as files:
        known = files.find(device) is not None
        done = broker.write(revoke(files, device, datetime.now(UTC).date()))
    print(f"{device} {'is revoked' if known else 'was not enrolled here; its name is barred all the same'}; {done}")
    if revoke_if_listed(state_dir, device):
        print("its seal keys are off the gateway's list: what it sealed is not opened any more")


def list_devices(broker: BrokerFolder, *, as_json: bool) -> None:
    """Print enrolled and revoked devices. Raises ConfigError."""
    devices = broker.read().devices
    if as_json:
        print(json.dumps([asdict(device) for device in devices], indent=1))
    elif devices:
        table = new_table(None, "device", "state", "credential", "since")
        for known in devices:
            add_row(table, known.device, known.state, known.credential, known.since or "-")
        Console().print(table)
    else:
        print("no device is enrolled: splitbus device enroll ID")


def _instructions(given: dict[str, Any]) -> Iterator[str]:
    """What goes on the camera, as a program has it."""
    yield ""
    yield "on the camera (this is shown once):"
    broker = {key: given[key] for key in ("username", "password", "cafile", "certfile", "keyfile") if key in given}
    options = ", ".join(f"{key}={json.dumps(value)}" for key, value in broker.items())
    yield f"  broker = BrokerSettings.of({json.dumps(given['broker'])}, {options})"
    rest = {key: given[key] for key in ("device", "site", "gateway_key", "seal_key") if key in given}
    yield "  InferenceSession(model, broker=broker, " + ", ".join(f"{k}={json.dumps(v)}" for k, v in rest.items()) + ")"
    if "gateway_key" not in given:
        yield "  and gateway_key=, the text in signing.pub of the gateway's state folder: it then believes nobody else"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): run this on the broker's machine, as root") from None


def _replace(path: Path, text: str) -> None:
    """The file with another text, whole at any time, under its owner and for nobody else to read."""
    try:
        with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8") as file:
            file.write(text)  # its mode is 0600 from the beginning
            file.flush()
            os.fsync(file.fileno())
        part = Path(file.name)
        try:
            _give(part, path)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; run this on the broker's machine, as root"
        ) from None


def _give(part: Path, path: Path) -> None:
    """The owner that the file had; for a new one the broker's own user, where there is one."""
    if path.exists():
        known = path.stat()
        os.chown(part, known.st_uid, known.st_gid)
    elif os.geteuid() == 0 and BROKER_USER in {user.pw_name for user in pwd.getpwall()}:
        shutil.chown(part, BROKER_USER)


def _reload(pid_file: Path) -> str:
    """Tell the broker, which reads passwords and rights again and drops clients that lost theirs."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGHUP)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the files are written, but {pid_file} names no broker ({error}): {RELOAD}") from None
    return f"the broker, process {pid}, reads its files again"
