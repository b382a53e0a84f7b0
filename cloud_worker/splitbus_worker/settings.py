"""A worker's settings, and the TOML file that holds them."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from splitbus_runtime.agent import default_store
from splitbus_runtime.settings import BrokerSettings, Settings, load_settings
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import check_id
from splitbus_schemas.limits import MAX_ID_BYTES


class WorkerConfig(Settings):
    """One worker."""

    site: str = Field(default="home", description="The site whose topics it works under.")
    node: str = Field(default="", description="Its id on the bus; host name and tier when empty.")
    tier: Literal["edge", "cloud"] = Field(default="edge", description="Where it stands: `edge` or `cloud`.")
    broker: BrokerSettings = Field(default_factory=BrokerSettings, description="How to reach the broker.")
    gateway_key: str = Field(
        default="",
        description="`ed25519:...`, or a file of such lines; orders and slices not signed with it are refused.",
    )
    seal_key: str = Field(
        default="",
        description="`x25519-secret:...`, or a file that holds it (mode 0600): what is sealed for its public key is "
        "opened. Needs `gateway_key`.",
    )
    state_dir: Path | None = Field(default=None, description="Folder of slices on disk; the user's cache if absent.")
    disk_mb: int = Field(default=8192, ge=64, description="What those may take; the least recently used ones give way.")
    memory_mb: int = Field(default=1024, ge=16, description="What warm sessions may take; the longest unused close.")
    concurrency: int = Field(default=1, ge=1, le=64, description="Frames that run at once.")
    threads: int = Field(default=0, ge=0, le=1024, description="Threads for one frame; 0 leaves it to onnxruntime.")
    queue: int = Field(default=16, ge=1, le=1024, description="Frames that may wait, of all devices together.")
    queue_per_device: int = Field(
        default=4, ge=1, le=1024, description="Of one device; then its newest ousts its oldest."
    )
    max_messages_s: int = Field(
        default=1000, ge=1, description="Messages of one device, parts of frames counted; beyond, they are not read."
    )
    stuck_s: float = Field(
        default=30.0, ge=1, le=3600, description="A frame that runs longer hangs: the watchdog is fed no more."
    )
    slowdown: float = Field(default=1.0, ge=1, le=1000, description="Emulates a machine so many times slower.")

    @field_validator("site", "node")
    @classmethod
    def _is_an_id(cls, value: str) -> str:
        try:
            return check_id("the id", value) if value else value
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _has_a_site(self) -> WorkerConfig:
        if not self.site:
            raise ValueError("site is empty: name the site")
        return self

    @property
    def node_id(self) -> str:
        """`node`, or an id made of host name and tier."""
        return self.node or default_node(socket.gethostname(), self.tier)

    @property
    def store_folder(self) -> Path:
        """Where slices are kept."""
        return self.state_dir or default_store(self.node_id)


def default_node(host: str, tier: str) -> str:
    """An id for the worker of this tier on `host`, whatever the host is called."""
    name = re.sub(r"[^a-z0-9]+", "-", host.partition(".")[0].lower()).strip("-") or "worker"
    return f"{name[: MAX_ID_BYTES - len(tier) - 1]}-{tier}"


def load_config(path: Path) -> WorkerConfig:
    """The settings in a TOML file. Raises ConfigError naming file, key, value and what is allowed."""
    return load_settings(WorkerConfig, path)
