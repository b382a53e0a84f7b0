from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime.settings import BrokerSettings, Settings, load_settings
from splitbus_schemas.errors import ConfigError


class Inner(Settings):
    level: int = 3
    folder: Path = Path("there")


class Outer(Settings):
    name: str
    inner: Inner = Inner()


def load(tmp_path: Path, text: str | bytes) -> Outer:
    path = tmp_path / "outer.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(Outer, path)


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "address"),
    [
        ("mqtt://gateway", "gateway", 1883, False, "mqtt://gateway:1883"),
        ("mqtts://gateway/", "gateway", 8883, True, "mqtts://gateway:8883"),
        ("mqtt://10.0.0.1:1884", "10.0.0.1", 1884, False, "mqtt://10.0.0.1:1884"),
        ("mqtt://[fe80::1]:1884", "fe80::1", 1884, False, "mqtt://[fe80::1]:1884"),
        ("mqtt://cam:s%40crt@gateway", "gateway", 1883, False, "mqtt://gateway:1883"),
    ],
)
def test_a_url_names_the_broker(url: str, host: str, port: int, *, tls: bool, address: str) -> None:
    broker = BrokerSettings.of(url)
    assert (broker.host, broker.port, broker.tls, broker.address) == (host, port, tls, address)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("gateway", "no scheme"),
        ("gateway:1883", "no scheme"),
        ("http://gateway", "'http' is not known"),
        ("mqtt://", "names no host"),
        ("mqtt://gateway:0", "1 to 65535"),
        ("mqtt://gateway:70000", "1 to 65535"),
        ("mqtt://gateway:x", "1 to 65535"),
        ("mqtt://gateway/topic", "behind host and port"),
        ("mqtt://[::1", "IPv6"),
    ],
)
def test_a_wrong_url_says_how_to_write_it(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        BrokerSettings.of(url)
    assert f"broker: url = {url!r}" in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_broker_or_a_clear_error(text: str) -> None:
    problem = ""
    try:
        problem = "" if BrokerSettings.of(text).host else "no host"
    except ConfigError as error:
        problem = str(error)
    assert not problem or problem.startswith("broker: url = ")


def by(key: str, value: str | Path) -> BrokerSettings:
    return BrokerSettings.of("mqtt://h", username="u", **{key: value})


def test_the_password_comes_from_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("from file\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert BrokerSettings.of("mqtt://h").read_password() is None
    assert BrokerSettings.of("mqtt://u:s%40crt@h").read_password() == "s@crt"
    assert BrokerSettings.of("mqtt://u:s%40crt@h").user == "u"
    assert by("password", "direct").read_password() == "direct"
    assert by("password_file", tmp_path / "secret").read_password() == "from file"
    credential = by("password_credential", "secret")
    assert credential.read_password() == "from file"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(ConfigError, match="LoadCredential="):
        credential.read_password()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"username": "u", "password": "a", "password_file": "b"}, "given twice, by password and password_file"),
        ({"password": "a"}, "needs a user name"),
        ({"certfile": "c"}, "belong together"),
        ({"cafile": "c"}, "begin the URL with mqtts://"),
    ],
)
def test_contradictions_are_refused_before_anything_is_tried(fields: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        BrokerSettings.of("mqtt://h", **fields)


def test_secrets_are_not_shown() -> None:
    assert "hush" not in repr(by("password", "hush"))
    with pytest.raises(ConfigError) as caught:
        BrokerSettings.of("mqtt://u:hush@h:x")
    assert "hush" not in str(caught.value)


def test_files_that_are_missing_or_wrong_are_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    empty = tmp_path / "empty"
    empty.write_text("")
    with pytest.raises(ConfigError, match=r"broker\.cafile: .*gone\.pem cannot be read: No such file"):
        BrokerSettings.of("mqtts://h", cafile=tmp_path / "gone.pem").ssl_context()
    with pytest.raises(ConfigError, match=r"junk\.pem holds no certificate"):
        BrokerSettings.of("mqtts://h", cafile=junk).ssl_context()
    with pytest.raises(ConfigError, match=r"junk\.pem and keyfile .* no pair"):
        BrokerSettings.of("mqtts://h", certfile=junk, keyfile=junk).ssl_context()
    with pytest.raises(ConfigError, match="empty is empty"):
        BrokerSettings.of("mqtt://h", username="u", password_file=empty).read_password()


def test_tls_checks_the_broker(tmp_path: Path) -> None:
    assert BrokerSettings.of("mqtt://h").ssl_context() is None
    context = BrokerSettings.of("mqtts://h").ssl_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_file_gives_settings_with_paths_beside_it(tmp_path: Path) -> None:
    settings = load(tmp_path, 'name = "x"\n[inner]\nlevel = 5\nfolder = "here"\n')
    assert settings == Outer(name="x", inner=Inner(level=5, folder=tmp_path / "here"))
    assert load(tmp_path, 'name = "x"').inner.folder == Path("there")
    assert load(tmp_path, 'name = "x"\n[inner]\nfolder = "/abs"').inner.folder == Path("/abs")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "x"\n[inner]\nlevle = 5', r"inner\.levle is not a setting: did you mean level\?"),
        ('name = "x"\nsomething = 5', r"something is not a setting: known here are name, inner"),
        ('name = "x"\n[inner]\nlevel = "high"', r"inner\.level = 'high': .*integer"),
        ('name = "x"\ninner = 3', r"inner: .*dictionary"),
        ("", r"name is missing"),
        ("\nname = ?", r"is not a TOML file: .*line 2"),
        (b"\xff", r"is not a TOML file"),
    ],
)
def test_a_wrong_file_is_told_by_file_key_and_value(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(tmp_path, text)
    assert "outer.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read: No such file"):
        load_settings(Outer, tmp_path / "gone.toml")


@given(text=st.text(max_size=60))
def test_any_text_is_settings_or_a_config_error(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    problem = ""
    try:
        load(folder, text.encode(errors="surrogatepass"))
    except ConfigError as error:
        problem = str(error)
    assert not problem or problem.startswith(str(folder / "outer.toml"))
