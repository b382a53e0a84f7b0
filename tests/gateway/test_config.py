from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from splitbus_gateway import config_reference
from splitbus_gateway.config import GatewayConfig, load_config
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.errors import ConfigError


def load(tmp_path: Path, text: str) -> GatewayConfig:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return load_config(path)


def test_every_setting_has_a_default(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config == GatewayConfig()
    assert (config.site, config.node, config.broker.port) == ("home", "gateway", 1883)
    assert config.planner.codecs == tuple(CODECS)


def test_settings_are_taken(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        site = "garden"
        state_dir = "state"
        [broker]
        url = "mqtts://broker"
        cafile = "ca.pem"
        [planner]
        codecs = ["zstd", "q8"]
        deadline_ms = 80
        [blobs]
        max_mbit = 5.5
        """,
    )
    assert config.state_dir == tmp_path / "state"
    assert config.broker.cafile == tmp_path / "ca.pem"
    assert (config.planner.codecs, config.planner.deadline_ms, config.blobs.max_mbit) == (("zstd", "q8"), 80.0, 5.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('sight = "x"', "sight is not a setting: did you mean site?"),
        ("[planer]\ndwell_s = 1", "planer is not a setting: did you mean planner?"),
        ("[planner]\nmin_gian = 1", "planner.min_gian is not a setting: did you mean min_gain?"),
        ("[planner]\nmin_agreement = 1.5", "planner.min_agreement = 1.5: input should be less than or equal to 1"),
        ('[planner]\ncodecs = ["q8", "jpeg"]', "jpeg is no codec: use some of raw, zstd, f16, q8, q4"),
        ("[planner]\ncodecs = []", "planner.codecs = []: name at least one of raw, zstd"),
        ('[planner]\nobjective = "luck"', "planner.objective = 'luck': input should be 'latency'"),
        ("[planner]\ndwell_s = 5\nmax_dwell_s = 1", "planner: max_dwell_s is 1, less than dwell_s with 5"),
        ("[planner]\nmin_gain_ms = nan", "planner.min_gain_ms = nan"),
        ('site = "My Home"', "site = 'My Home': string should match pattern"),
        ('[broker]\nurl = "broker"', "broker.url = 'broker': the URL has no scheme"),
        ("[models]\nmax_models = 0", "models.max_models = 0: input should be greater than or equal to 1"),
        ("[blobs]\nmax_mbit = -1", "blobs.max_mbit = -1: input should be greater than 0"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "gateway.toml"))
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "site = 1\n[blobs]\nmax_mbit = 0\n")
    assert "site = 1" in str(caught.value)
    assert "blobs.max_mbit = 0" in str(caught.value)


# The generated reference and example


def test_the_generated_files_are_what_the_settings_say() -> None:
    for path, write in config_reference.FILES.items():
        assert path.read_text() == write(), f"{path}: run python -m splitbus_gateway.config_reference"


def test_every_setting_is_described() -> None:
    for _, kind in config_reference._tables(GatewayConfig):
        for key, field in kind.model_fields.items():
            assert field.description, key
            assert field.description.endswith("."), key


def test_the_example_is_a_file_of_defaults(tmp_path: Path) -> None:
    example = config_reference.example()
    assert load(tmp_path, example) == GatewayConfig()
    settings = "\n".join(re.sub(r"^# (?=\w+ = )", "", line) for line in example.splitlines())
    everything = tomllib.loads(settings)
    assert set(everything) == set(GatewayConfig.model_fields)
    for name, kind in config_reference._tables(GatewayConfig):
        if name:
            assert set(everything[name]) == set(kind.model_fields)


def test_check_finds_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.md"
    monkeypatch.setattr(config_reference, "ROOT", tmp_path)
    monkeypatch.setattr(config_reference, "FILES", {path: config_reference.reference})
    assert config_reference.main(["--check"]) == 1
    assert "config.md is not what the settings say" in capsys.readouterr().err
    assert not path.exists()
    assert config_reference.main([]) == 0
    assert config_reference.main(["--check"]) == 0


def test_the_module_runs() -> None:
    command = [sys.executable, "-m", "splitbus_gateway.config_reference", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
