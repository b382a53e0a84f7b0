"""The gateway's settings, and how they are read from a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from splitbus_runtime.settings import BrokerSettings, Settings, load_settings
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.differences import SLACK, STILL_SLACK
from splitbus_schemas.messages import Id

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Blocks = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class WeightSettings(Settings):
    """In place of a named objective: plans minimise the sum of these figures, each times its weight."""

    latency: NotNegative = Field(default=0.0, description="For a frame's way, in ms.")
    interval: NotNegative = Field(default=0.0, description="For the busiest node or link, in ms per frame.")
    kilobytes: NotNegative = Field(default=0.0, description="For what all links carry of a frame.")
    device_ms: NotNegative = Field(default=0.0, description="For what the device computes of a frame.")

    @property
    def are_given(self) -> bool:
        """Whether any of them weighs something."""
        return any((self.latency, self.interval, self.kilobytes, self.device_ms))


class PlannerSettings(Settings):
    """What makes one plan better than another, what plans have to keep to, and when a better one is worth a change."""

    objective: Literal["latency", "throughput", "bytes", "device"] = Field(
        default="latency",
        description="What plans minimise: a frame's way, the busiest node or link, what links carry, what the device "
        "computes.",
    )
    weights: WeightSettings = Field(
        default_factory=WeightSettings, description="A weighted sum in place of the objective."
    )
    deadline_ms: Positive | None = Field(
        default=None,
        description="Answers later than this are useless; a plan that cannot keep it says so.",
        examples=[100.0],
    )
    min_agreement: Share = Field(
        default=0.98,
        description="Least share of answers that a lossy codec must leave as they were, measured on the samples.",
    )
    max_accuracy_loss: Share | None = Field(
        default=None,
        description="In place of `min_agreement`, a promise: the share of answers that codecs may change. What the "
        "samples do not prove with 95 % confidence is not offered; 0.01 takes 300 samples.",
        examples=[0.01],
    )
    codecs: tuple[str, ...] = Field(
        default=tuple(CODECS), description="Codecs that plans may use at a cut; `raw`, `zstd`, `webpll` lose nothing."
    )
    temporal: Literal["exact", "calm", "still", "off"] = Field(
        default="exact",
        description="Frames under `t1` to `t12` are told as differences from earlier ones. `exact`: bit by bit the "
        "same tensors. `calm`: a coefficient only once it lies 0.6 of a step off, which spares 0.2 to 0.4 of a still "
        "scene's bytes. `still`: 0.75, which spares 0.3 to 0.7, but from `t9` on cost answers. What samples say of a "
        "codec holds for `exact`.",
    )
    keep_input_on_device: bool = Field(
        default=False, description="Frames never leave the device as they are: at least one block runs there."
    )
    keep_blocks_on_device: Blocks = Field(
        default=0, description="So many of the model's blocks run on the device, and nothing they are given leaves it."
    )
    keep_blocks_on_site: Blocks = Field(
        default=0, description="So many blocks run on no cloud worker, and nothing they are given goes there."
    )
    max_rebuilt: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="How alike (SSIM) to a picture may be what a decoder rebuilds from what leaves the device, as "
        "measured by `model add --calibrate`; cuts that were not measured are not used.",
        examples=[0.3],
    )
    device_memory_mb: Positive | None = Field(
        default=None,
        description="What the device's part may take in memory: weights and the largest tensors.",
        examples=[64.0],
    )
    max_mbit: Positive | None = Field(
        default=None,
        description="What a device may send and receive together on average, at the rate its frames come.",
        examples=[2.0],
    )
    max_mb_per_day: Positive | None = Field(
        default=None, description="The same as megabytes a day, as mobile tariffs count.", examples=[500.0]
    )
    must_run: tuple[Id, ...] = Field(
        default=(), description="Nodes or tiers (`device`, `edge`, `cloud`) that run a part of the model in every plan."
    )
    must_not_run: tuple[Id, ...] = Field(default=(), description="Nodes or tiers that run a part in none.")
    min_gain: Share = Field(default=0.10, description="A change must gain at least this share of the present latency.")
    min_gain_ms: NotNegative = Field(default=2.0, description="... and at least so many milliseconds.")
    dwell_s: NotNegative = Field(
        default=2.0, description="Least time between two changes; doubled for each change that undoes the one before."
    )
    max_dwell_s: NotNegative = Field(default=60.0, description="Where that doubling ends.")
    sharp: Annotated[float, Field(gt=1, allow_inf_nan=False)] = Field(
        default=1.5, description="When the running plan costs so many times what it did, a change waits for no dwell."
    )

    @property
    def agreement(self) -> float:
        """The least share of answers that stay the same."""
        return self.min_agreement if self.max_accuracy_loss is None else 1.0 - self.max_accuracy_loss

    @property
    def proven(self) -> bool:
        """Whether samples have to prove it."""
        return self.max_accuracy_loss is not None

    @property
    def slack(self) -> float | None:
        """How far a coefficient may lie off an earlier frame's before it is told; None: every frame stands alone."""
        return {"off": None, "exact": 0.5, "calm": SLACK, "still": STILL_SLACK}[self.temporal]

    @field_validator("codecs")
    @classmethod
    def _codecs_are_known(cls, codecs: tuple[str, ...]) -> tuple[str, ...]:
        known = ", ".join(CODECS)
        if not codecs:
            raise ValueError(f"name at least one of {known}")
        unknown = [codec for codec in codecs if codec not in CODECS]
        if unknown:
            raise ValueError(f"{unknown[0]} is no codec: use some of {known}")
        return codecs

    @model_validator(mode="after")
    def _orders_agree(self) -> Self:
        both = sorted({*self.must_run} & {*self.must_not_run})
        if both:
            raise ValueError(f"{both[0]} is named by must_run and by must_not_run: keep one")
        if "device" in self.must_not_run and (self.keep_input_on_device or self.keep_blocks_on_device):
            raise ValueError("must_not_run names the device, but the first blocks are to be kept there: keep one")
        if self.weights.are_given and self.objective != "latency":
            raise ValueError(f"objective is {self.objective!r} and weights are given too: keep one")
        return self

    @model_validator(mode="after")
    def _dwell_has_an_end(self) -> Self:
        if self.max_dwell_s < self.dwell_s:
            raise ValueError(f"max_dwell_s is {self.max_dwell_s:g}, less than dwell_s with {self.dwell_s:g}")
        return self


class ModelSettings(Settings):
    """How models are kept and measured when they are added."""

    max_models: Annotated[int, Field(ge=1, le=1000)] = Field(default=32, description="More are refused.")
    samples: Annotated[int, Field(ge=1, le=256)] = Field(
        default=8, description="Inputs on which coded sizes and agreement are measured."
    )
    max_input_ratio: Positive = Field(
        default=1.0, description="Cuts that carry more than so many times the bytes of the input are left out."
    )


class BlobSettings(Settings):
    """How slices, weights and model files reach the nodes."""

    max_mbit: Positive = Field(default=80.0, description="What all downloads together may take of the gateway's link.")
    store_mb: Annotated[int, Field(ge=64)] = Field(
        default=4096, description="Disk for slices; the least recently used give way. Models do not count."
    )


class LeaseSettings(Settings):
    """Which of a site's gateways plans, when there is more than one."""

    seconds: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)] = Field(
        default=3.0,
        description="A leader that was not heard of for so long is followed by the gateway that waits; one that the "
        "broker calls lost, or that stops, at once.",
    )
    side: Id | None = Field(
        default=None,
        description="Where this gateway is, in a site with two brokers that a bridge joins and a gateway at each.",
        examples=["edge"],
    )
    bridge: Id | None = Field(
        default=None, description="The `remote_clientid` of that bridge, at both gateways.", examples=["bridge-home"]
    )
    when_cut: Literal["wait", "lead"] = Field(
        default="wait",
        description="While the bridge is cut, a gateway that stood by for one beyond it lets the plans stand as they "
        "are, or leads its own side; once they are joined again one of both leads.",
    )

    @model_validator(mode="after")
    def _sides_and_bridge_go_together(self) -> Self:
        if self.bridge and not self.side:
            raise ValueError("bridge is given without side: name this gateway's side, another one at each gateway")
        if self.side and not self.bridge:
            raise ValueError("side is given without bridge: name the bridge between the sides, its remote_clientid")
        if self.when_cut == "lead" and not self.bridge:
            raise ValueError("when_cut is 'lead' without a bridge: name the bridge, or leave when_cut out")
        return self


class GatewayConfig(Settings):
    """Settings of the gateway daemon."""

    site: Id = Field(default="home", description="The part of the topic tree that this gateway manages.")
    node: Id = Field(default="gateway", description="The gateway's own id, below which it publishes status and alerts.")
    state_dir: Path = Field(
        default=Path("/var/lib/splitbus"), description="Where models, slices and measurements are kept."
    )
    broker: BrokerSettings = Field(default_factory=BrokerSettings, description="The MQTT broker.")
    planner: PlannerSettings = Field(default_factory=PlannerSettings, description="How plans are chosen.")
    models: ModelSettings = Field(default_factory=ModelSettings, description="How models are kept and measured.")
    lease: LeaseSettings = Field(
        default_factory=LeaseSettings, description="Which of a site's gateways plans, when there is more than one."
    )
    blobs: BlobSettings = Field(default_factory=BlobSettings, description="How nodes get what they run.")


def load_config(path: Path) -> GatewayConfig:
    """The gateway's settings in a TOML file. Raises ConfigError naming file, key, value and what is allowed."""
    return load_settings(GatewayConfig, path)
