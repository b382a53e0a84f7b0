"""What a caller learns beside the tensors: how its frame was answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from splitbus_schemas.messages import Step

Route: TypeAlias = tuple[str, ...]
"""Node ids in order; the device alone when it answered itself."""

Outcome: TypeAlias = Literal["answered", "dropped", "failed", "known"]
"""`known`: the answer to this durable frame was applied already, so it is not given again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One frame's one answer."""

    outputs: list[Any]
    """As onnxruntime gives them; empty unless answered."""
    route: Route
    plan: str
    """The plan's id; "local" when no plan was followed."""
    epoch: int
    frame: str
    """device/boot/sequence, as seen on the bus."""
    total_ms: float
    steps: tuple[Step, ...] = ()
    attempts: int = 0
    """How often it was sent; 0 for a local answer that never left."""
    late: bool = False
    """After its deadline."""
    reason: str = ""
    """Why it was answered here although a plan was active, or why it was dropped."""
    cuts: tuple[int, ...] = ()
    """Indices of the cuts that it crossed, in order."""
    codecs: tuple[str, ...] = ()
    """At each of them."""
    cut_bytes: tuple[int, ...] = ()
    """Bytes that left the device."""
    outcome: Outcome = "answered"
    input: Any = field(default=None, repr=False)
    """What was fed, for the iterator form."""
    key: str = ""
    """The durable frame's."""
    repeated: bool = False
    """It may have been delivered before, by an earlier life of the program."""
    reused: bool = False
    """It is an earlier frame's, given again because the scene stands still; `attempts` is 0."""
    age_ms: float = 0.0
    """Of one that is reused: how long before this frame the one was asked for that it was made for."""
    again: bool = False
    """The first answer was in doubt: the frame was sent again, in finer detail, and this is the second one."""

    @property
    def is_local(self) -> bool:
        """Whether the device answered alone."""
        return len(self.route) == 1
