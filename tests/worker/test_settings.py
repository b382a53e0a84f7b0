"""A worker's settings: defaults, files, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime.settings import BrokerSettings
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import is_id
from splitbus_worker import WorkerConfig, load_config
from splitbus_worker.settings import default_node

EXAMPLE = Path(__file__).parents[2] / "cloud_worker" / "worker.example.toml"


def test_nothing_need_be_set() -> None:
    config = WorkerConfig()
    assert is_id(config.node_id)
    assert config.node_id.endswith("-edge")
    assert config.broker == BrokerSettings()
    assert config.store_folder.name == config.node_id


@given(st.text(max_size=100), st.sampled_from(["edge", "cloud"]))
def test_any_host_name_gives_an_id(host: str, tier: str) -> None:
    assert is_id(default_node(host, tier))


def test_a_host_name_is_recognised() -> None:
    assert default_node("Rack_7.Example.org", "cloud") == "rack-7-cloud"


def test_the_example_is_valid_and_shows_the_defaults() -> None:
    config = load_config(EXAMPLE)
    defaults = WorkerConfig()
    differ = {key for key in WorkerConfig.model_fields if getattr(config, key) != getattr(defaults, key)}
    assert differ <= {"node", "tier", "broker", "state_dir"}


BAD = {
    "memroy_mb = 5": "memroy_mb is not a setting: did you mean memory_mb?",
    "concurrency = 0": "concurrency = 0",
    'tier = "fog"': "tier = 'fog'",
    'node = "Edge 1"': "node = 'Edge 1'",
    'site = ""': "site is empty",
    'slowdown = "much"': "slowdown = 'much'",
    '[broker]\nurl = "http://x"': "broker.url",
}


@pytest.mark.parametrize("text", BAD)
def test_errors_name_file_and_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "worker.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert BAD[text] in str(caught.value)
