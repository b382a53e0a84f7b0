"""Plans, and the decisions behind them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from splitbus_schemas.limits import MAX_STAGES
from splitbus_schemas.messages.base import (
    Coding,
    Count,
    Fraction,
    Id,
    Message,
    Milliseconds,
    Part,
    Sha256,
    Signature,
    Tier,
)
from splitbus_schemas.messages.nodes import LinkReport


class Again(Part):
    """When a frame is sent a second time, and how."""

    coding: Coding = Field(description="How the bytes of the same outputs are coded then.")
    below: float = Field(
        description="A frame is in doubt whose first answer's best score leads the second best by less than that."
    )


class PlanStage(Part):
    """One slice on one node."""

    node: Id
    tier: Tier
    slice: Sha256 | None = Field(default=None, description="None: the tensors are passed as they are.")
    coding: Coding = Field(default="raw", description="How the bytes of its outputs are coded.")
    slack: Annotated[float, Field(ge=0.5, lt=1)] | None = Field(
        default=None,
        description="Its coefficients are told as differences from a frame that the next node holds, each of them once "
        "it lies so many steps off; absent: every frame stands alone.",
    )
    again: Again | None = Field(default=None, description="Frames in doubt are sent again; absent: none is.")


class PlanCut(Part):
    """Where the model is cut between two stages."""

    index: Count
    codec: str
    tensors: list[str] = Field(default_factory=list)
    bytes: Count = Field(default=0, description="Expected size on the wire.")


class Step(Part):
    """One step of a frame's way, predicted or measured."""

    what: Literal["run", "encode", "link", "decode", "queue", "other"]
    where: str = Field(description="A node, node>node for a link, or what else is counted in.")
    ms: Milliseconds
    bytes: Count | None = None


class Plan(Message):
    """What a device does with each frame; retained at ctl/<device>/plan/<model>."""

    plan: Id
    epoch: Count = Field(description="Grows with every plan of this device and model; lower ones are ignored.")
    device: Id
    model: Sha256
    name: str
    head: PlanStage | None = Field(default=None, description="None: the whole model runs on the device.")
    routes: list[Annotated[list[PlanStage], Field(max_length=MAX_STAGES)]] = Field(
        default_factory=list, description="The remaining stages: first the choice, then alternates for the same head."
    )
    cuts: list[PlanCut] = Field(default_factory=list)
    predicted_ms: Milliseconds
    steps: list[Step] = Field(default_factory=list)
    reason: str
    signature: Signature = None

    @property
    def is_local(self) -> bool:
        """Whether the device answers alone."""
        return self.head is None or not self.routes


class PlanState(Message):
    """What a device made of a plan; retained at node/<device>/plan/<model>."""

    node: Id
    boot: Id
    plan: Id
    epoch: Count
    state: Literal["loading", "active", "failed", "ignored"]
    reason: str | None = None


class Candidate(Part):
    """A way to run the model that the planner priced."""

    label: str
    cuts: list[PlanCut]
    nodes: list[str]
    predicted_ms: Milliseconds
    steps: list[Step] = Field(default_factory=list)
    rebuilt: Fraction | None = Field(
        default=None, description="How alike (SSIM) to the picture is what a decoder makes of what leaves the device."
    )


class NodeInput(Part):
    """A node as a decision saw it."""

    node: Id
    tier: Tier
    whole_ms: Milliseconds | None = Field(default=None, description="The whole model there; None without a profile.")
    wait_ms: Milliseconds = Field(default=0.0, description="How long a job was expected to wait for others.")
    pace: float = Field(default=1.0, description="How many times longer than profiled it runs of late, counted in.")


class Flip(Part):
    """One figure at which the chosen way and its runner-up would tie, all else being equal."""

    what: Literal["up_mbit", "down_mbit", "rtt_ms", "wait_ms", "whole_ms"]
    where: str = Field(description="A node, or node>node for a link.")
    now: float
    at: float
    text: str


Cause = Literal["first", "link", "load", "speed", "nodes", "sizes", "pin", "limits"]
"""What moved a plan: `speed` is a node's own, `load` what others make it wait, `nodes` who came, went or broke."""


class Decision(Message):
    """Why the plan is what it is; retained at ctl/<device>/decision/<model>."""

    device: Id
    model: Sha256
    name: str
    plan: Id
    epoch: Count
    changed: bool
    at: str = Field(description="When, ISO 8601, by the gateway's clock.")
    why: str
    cause: Cause | None = Field(default=None, description="Of the running plan; None when an earlier gateway made it.")
    considered: Count
    chosen: Candidate
    runner_up: Candidate | None = None
    before: Candidate | None = None
    links: list[LinkReport] = Field(default_factory=list)
    nodes: list[NodeInput] = Field(default_factory=list)
    objective: dict[str, float] = Field(default_factory=dict, description="Weights of what plans minimise.")
    limits: dict[str, float | bool | list[str]] = Field(default_factory=dict, description="Those in force.")
    unmet: list[str] = Field(default_factory=list, description="Limits that no way keeps, or that a pin overrides.")
    flips: list[Flip] = Field(default_factory=list, description="What would have to change for the runner-up to win.")
    measured: list[Step] = Field(default_factory=list, description="The plan's steps as its frames have them.")
    measured_ms: Milliseconds | None = Field(default=None, description="Median of its frames, from call to answer.")
    off: float | None = Field(default=None, description="Measured over predicted, less one.")
    blocked: list[str] = Field(default_factory=list, description="What the planner lacked, node by node.")
    signature: Signature = None


class Pin(Message):
    """An operator's choice; retained at ops/pin/<device>/<model>, removed by an empty message."""

    cuts: list[PlanCut] = Field(default_factory=list, description="Empty: everything on the device.")
    nodes: list[Id] = Field(default_factory=list, description="The workers, in order; empty lets the gateway choose.")
    by: str = ""
