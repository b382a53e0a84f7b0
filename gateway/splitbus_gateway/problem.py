"""What the planner is asked: facts about model, nodes and links, as frozen values. Nothing here measures or decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splitbus_schemas.limits import MAX_PACKET_BYTES
from splitbus_schemas.messages import Tier

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, order=True, slots=True)
class Cut:
    """Where the model is cut (the model's own cut index), and the codec that carries its tensors."""

    index: int
    codec: str

    def __str__(self) -> str:
        return f"cut {self.index}/{self.codec}"


@dataclass(frozen=True, order=True, slots=True)
class Split:
    """A way to run the model: the device and the workers in order, with one cut between neighbours."""

    nodes: tuple[str, ...]
    cuts: tuple[Cut, ...] = ()

    def __str__(self) -> str:
        if not self.cuts:
            return f"all on {self.nodes[0]}"
        stages = zip(self.cuts, self.nodes[1:], strict=True)
        return " then ".join(f"{'input' if cut.index == 0 else 'cut'} {_code(cut)} on {node}" for cut, node in stages)


def _code(cut: Cut) -> str:
    return cut.codec if cut.index == 0 else f"{cut.index}/{cut.codec}"


@dataclass(frozen=True, eq=False)
class SecondLook:
    """Frames in doubt are sent again, finer: what that takes, in arrays like those of Codings; they hold figures where
    `share`, of frames in doubt, is above 0.
    """

    share: Floats
    below: Floats
    """By how much less than that the best score leads the second in the answers that are in doubt."""
    coded_bytes: Floats
    encode_ms: Floats
    decode_ms: Floats


@dataclass(frozen=True, eq=False)
class Codings:
    """What each codec makes of each cut's tensors, as measured.

    `cuts` are the useful cuts in order, the input's first and the answer's last. The arrays have one row for each
    cut but the last and one column for each codec; `coded_bytes` is NaN where a codec cannot carry the tensors.
    Times are the reference machine's, in ms. `agreement` is the share of answers that stay the same. Sizes and times
    are those of sending once.
    """

    cuts: tuple[int, ...]
    codecs: tuple[str, ...]
    coded_bytes: Floats
    encode_ms: Floats
    decode_ms: Floats
    agreement: Floats
    lossless: Flags
    second: SecondLook | None = None
    """None when no codec sends anything again."""


@dataclass(frozen=True, eq=False)
class NodeFacts:
    """A node as the planner sees it.

    `elapsed_ms` is the time from the input to each of the problem's cuts (0 first); None without a profile.
    `wait_ms` is how long a job is expected to queue there behind others; `lanes` is how many it runs at once.
    """

    node: str
    tier: Tier
    elapsed_ms: Floats | None
    wait_ms: float = 0.0
    codecs: frozenset[str] = frozenset()
    max_packet_bytes: int = MAX_PACKET_BYTES
    lanes: int = 1
    temporal: bool = False
    """It holds frames that later ones may tell their differences from."""
    slow: bool = False
    """It says itself that its runs take longer than usual; `elapsed_ms` knows of it."""


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """A link from its first node to its second; None where it was never measured."""

    rtt_ms: float | None
    up_mbit: float | None
    down_mbit: float | None
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Objective:
    """What plans minimise: the sum of these terms, each times its weight.

    `latency` weighs a frame's way in ms; `interval` the slowest stage in ms, links included, whose inverse is the
    throughput; `kilobytes` what all links carry of a frame; `device_ms` what the device computes of it.
    """

    latency: float = 1.0
    interval: float = 0.0
    kilobytes: float = 0.0
    device_ms: float = 0.0


OBJECTIVES: Final = {
    "latency": Objective(),
    "throughput": Objective(latency=0.0, interval=1.0),
    "bytes": Objective(latency=0.0, kilobytes=1.0),
    "device": Objective(latency=0.0, device_ms=1.0),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What every plan has to keep to. A pin overrides all but privacy and the workers that must not run."""

    min_agreement: float = 0.97
    lossless_only: bool = False
    codecs: frozenset[str] | None = None
    """None allows all."""
    deadline_ms: float | None = None
    keep_on_device: int = 0
    """So many blocks (between neighbouring cuts of the problem) run on the device, and nothing that they are given
    leaves it: 1 keeps the input there."""
    keep_on_site: int = 0
    """So many blocks never run on a cloud worker, nor does what they were given go there."""
    device_memory_mb: float | None = None
    """What the device's slice may take in memory, weights and largest tensors."""
    max_mbit: float | None = None
    """What the device may send and receive together on average, at the problem's frame rate."""
    max_mb_per_day: float | None = None
    """The same, in 10^6 bytes a day."""
    must_run: frozenset[str] = frozenset()
    """Nodes or tiers that run blocks in every plan."""
    must_not_run: frozenset[str] = frozenset()
    """Nodes or tiers that run blocks in none; the device may still encode what comes in."""
    max_rebuilt: float | None = None
    """How alike (SSIM) pictures may be that are rebuilt from what leaves the device; below 1."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """An operator's choice: these cuts (none: all on the device), on these workers (none: any)."""

    cuts: tuple[Cut, ...] = ()
    workers: tuple[str, ...] = ()
    by: str = ""


@dataclass(frozen=True, eq=False)
class Problem:
    """One device, one model, the workers that there are and the links between them.

    `reference_ms` is the whole model's time on the machine that measured the codings. `blocked` names what is
    known beforehand to be missing, one sentence for each node.
    """

    codings: Codings
    reference_ms: float
    answer_bytes: float
    device: NodeFacts
    workers: tuple[NodeFacts, ...] = ()
    links: Mapping[tuple[str, str], LinkFacts] = field(default_factory=dict)
    limits: Limits = Limits()
    objective: Objective = Objective()
    frames_per_s: float | None = None
    """How often a frame comes; None when it is not known, and then no limit on bytes over time is judged."""
    every_ms: float | None = None
    """Frames come so far apart, whatever their answers take: a way whose busiest stage takes longer falls behind, and
    is taken only when all do. None when frames may wait for each other, or it is not known."""
    memory_mb: Floats | None = None
    """What the device's slice up to each of the cuts takes in memory; None when it is not known."""
    tensors: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """What crosses each cut, by the cut's index, so that a tensor that skips blocks is known again behind them."""
    rebuilt: Floats | None = None
    """How alike (SSIM) to the picture is what a decoder rebuilds at each cut but the last; NaN where that was not
    measured, None where it was at none."""
    pin: Pinned | None = None
    blocked: tuple[str, ...] = ()

    def facts(self, node: str) -> NodeFacts | None:
        """The node's facts; None when it is not there."""
        return next((facts for facts in (self.device, *self.workers) if facts.node == node), None)
