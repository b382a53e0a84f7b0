from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from splitbus_gateway import config_reference
from splitbus_gateway.config import GatewayConfig, PlannerSettings, load_config
from splitbus_gateway.daemon import stream_settings
from splitbus_gateway.problem import OBJECTIVES, Limits, Objective
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


@pytest.mark.parametrize(
    ("lease", "remedy"),
    [
        ('bridge = "bridge-home"', "name this gateway's side"),
        ('side = "edge"', "name the bridge between the sides"),
        ('when_cut = "lead"', "name the bridge, or leave when_cut out"),
        ('side = "edge"\nbridge = "bridge-home"\nwhen_cut = "hope"', "'wait' or 'lead'"),
    ],
)
def test_a_bridge_and_its_sides_are_set_together(tmp_path: Path, lease: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        load(tmp_path, f"[lease]\n{lease}\n")
    whole = load(tmp_path, '[lease]\nside = "edge"\nbridge = "bridge-home"\n').lease
    assert (whole.side, whole.bridge, whole.when_cut) == ("edge", "bridge-home", "wait")


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
        must_not_run = ["cloud"]
        [planner.weights]
        latency = 1
        kilobytes = 0.5
        [blobs]
        max_mbit = 5.5
        """,
    )
    assert config.state_dir == tmp_path / "state"
    assert config.broker.cafile == tmp_path / "ca.pem"
    assert (config.planner.codecs, config.planner.deadline_ms, config.blobs.max_mbit) == (("zstd", "q8"), 80.0, 5.5)
    settings = stream_settings(config.planner)
    assert settings.objective == Objective(1.0, kilobytes=0.5)
    assert settings.limits == Limits(
        min_agreement=0.98, codecs=frozenset({"zstd", "q8"}), deadline_ms=80.0, must_not_run=frozenset({"cloud"})
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_have_names(tmp_path: Path, name: str) -> None:
    assert stream_settings(load(tmp_path, f"[planner]\nobjective = {name!r}").planner).objective == OBJECTIVES[name]


def test_every_limit_has_a_setting(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        [planner]
        min_agreement = 0.9
        codecs = ["raw"]
        deadline_ms = 100
        keep_input_on_device = true
        keep_blocks_on_site = 4
        device_memory_mb = 64
        max_mbit = 2
        max_mb_per_day = 500
        must_run = ["edge"]
        must_not_run = ["cloud2"]
        max_rebuilt = 0.3
        """,
    )
    limits = stream_settings(config.planner).limits
    assert limits == Limits(
        0.9, False, frozenset({"raw"}), 100.0, 1, 4, 64.0, 2.0, 500.0, frozenset({"edge"}), frozenset({"cloud2"}), 0.3
    )
    not_set = {field.name for field in fields(Limits) if getattr(limits, field.name) == getattr(Limits(), field.name)}
    assert not_set == {"lossless_only"}  # `codecs` says the same
    more = load(tmp_path, "[planner]\nkeep_input_on_device = true\nkeep_blocks_on_device = 3")
    assert stream_settings(more.planner).limits.keep_on_device == 3


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
        ("[planner.weights]\nlatency = -1", "planner.weights.latency = -1: input should be greater than or equal to 0"),
        ("[planner.weights]\nspeed = 1", "planner.weights.speed is not a setting: known here are latency, interval"),
        ('[planner]\nobjective = "bytes"\n[planner.weights]\nlatency = 1', "planner: objective is 'bytes' and weights"),
        ("[planner]\nkeep_blocks_on_site = -1", "planner.keep_blocks_on_site = -1: input should be greater than or"),
        ("[planner]\ndevice_memory_mb = 0", "planner.device_memory_mb = 0: input should be greater than 0"),
        ("[planner]\nmax_mbit = inf", "planner.max_mbit = inf: input should be a finite number"),
        ('[planner]\nmust_run = ["My Edge"]', "planner.must_run.0 = 'My Edge': string should match pattern"),
        ('[planner]\nmust_run = ["a"]\nmust_not_run = ["a"]', "planner: a is named by must_run and by must_not_run"),
        (
            '[planner]\nkeep_input_on_device = true\nmust_not_run = ["device"]',
            "planner: must_not_run names the device, but the first blocks are to be kept there",
        ),
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
    for name, kind in config_reference._tables(GatewayConfig):
        table = everything
        for part in filter(None, name.split(".")):
            table = table[part]
        assert set(table) == set(kind.model_fields), name


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


def test_a_promise_stands_in_place_of_the_agreement_seen() -> None:
    plain = PlannerSettings()
    assert (plain.agreement, plain.proven) == (plain.min_agreement, False)
    promised = PlannerSettings(max_accuracy_loss=0.01)
    assert (promised.agreement, promised.proven) == (0.99, True)
    assert stream_settings(promised).limits.min_agreement == 0.99
