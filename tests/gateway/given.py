"""A model, nodes and links for tests of offline planning: figures by hand, so that plans can be checked by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from splitbus_gateway.facts import ModelFacts
from splitbus_gateway.offline import Demands, GivenLink, GivenNode, ask, scaled, write_world
from splitbus_gateway.problem import Codings, Problem
from splitbus_gateway.state import World
from splitbus_gateway.trace import COLUMNS, Trace
from splitbus_schemas.ids import sha256
from splitbus_schemas.messages import NodeProfile

MODEL: Final = sha256(b"by hand")
CUTS: Final = (0, 2, 5, 9)
CODECS: Final = ("raw", "zstd", "q8")
BYTES: Final = ((100e3, 90e3, 25e3), (40e3, 30e3, 10e3), (8e3, 8e3, 2e3))
"""A row for each cut, a column for each codec."""

PROFILE: Final = NodeProfile(
    node="x", boot="b", model=MODEL, cuts=list(CUTS[1:]), block_ms=[4.0, 4.0, 2.0], spread_ms=[0.1] * 3, whole_ms=10.0,
    runs=7,
)  # fmt: skip
"""Of the reference machine."""


def facts(agreement: float = 0.99, answer_bytes: float = 1000.0) -> ModelFacts:
    """The model: 10 ms on the reference machine; 8 bits cost 1 ms and a share of the answers."""
    lossless = np.broadcast_to([True, True, False], (3, 3))
    codings = Codings(
        cuts=CUTS,
        codecs=CODECS,
        coded_bytes=np.array(BYTES),
        encode_ms=np.where(lossless, 0.0, 1.0),
        decode_ms=np.where(lossless, 0.0, 0.5),
        agreement=np.where(lossless, 1.0, agreement),
        lossless=lossless,
    )
    return ModelFacts("hand", MODEL, codings, 10.0, answer_bytes, {0: ("x",), 2: ("a",), 5: ("b",)})


NODES: Final = (
    GivenNode("device", "device", scaled(PROFILE, 10)),
    GivenNode("edge1", "edge", scaled(PROFILE, 2)),
    GivenNode("cloud1", "cloud", PROFILE),
)
LINKS: Final = (
    GivenLink("device", "edge1", 40.0, 80.0, 2.0),
    GivenLink("device", "cloud1", 10.0, 40.0, 20.0),
    GivenLink("edge1", "cloud1", 100.0, 100.0, 10.0),
)


def world(nodes: Sequence[GivenNode] = NODES, links: Sequence[GivenLink] = LINKS) -> World:
    """Those nodes and links as the bus would have told."""
    written = World()
    write_world(written, nodes, links)
    return written


def question(
    demands: Demands | None = None,
    *,
    nodes: Sequence[GivenNode] = NODES,
    links: Sequence[GivenLink] = LINKS,
    model: ModelFacts | None = None,
) -> Problem:
    """What the planner is asked."""
    return ask(world(nodes, links), model or facts(), "device", demands or Demands())


def write_trace(trace: Trace) -> Iterator[str]:
    """The lines of a CSV file."""
    yield ",".join(COLUMNS)
    for moment in trace.moments:
        yield f"{moment.at:g},{moment.up_mbit:.4g},{moment.down_mbit:.4g},{moment.rtt_ms:.4g}"
