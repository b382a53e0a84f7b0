"""What becomes of frames, and pieces of blobs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from splitbus_schemas.limits import BLOB_CHUNK_BYTES, WIRE_VERSION
from splitbus_schemas.messages.base import Count, Id, Message, Milliseconds, Sha256
from splitbus_schemas.messages.plans import Step

BLOB_DATA_PATTERN = rf"^splitbus/v{WIRE_VERSION}/[a-z0-9_-]+/blob/data/[a-z0-9_-]+/[a-z0-9_-]+$"


class StreamStats(Message):
    """A device's frames over the last period; retained at node/<device>/stream/<model>."""

    node: Id
    boot: Id
    model: Sha256
    plan: str
    epoch: Count
    period_s: Annotated[float, Field(gt=0)]
    frames: Count = Field(description="Frames answered within the period.")
    again: Count = Field(default=0, description="Those of them that were sent again, as their answers were in doubt.")
    routes: dict[str, Count] = Field(default_factory=dict, description="Answers by route, e.g. cam>edge1>cloud1.")
    p50_ms: Milliseconds | None = None
    p95_ms: Milliseconds | None = None
    steps: list[Step] = Field(default_factory=list, description="Medians by step over bus answers, or all.")
    cut_bytes: list[Count] = Field(default_factory=list, description="Median coded bytes at each cut.")
    in_flight: Count = 0
    guarded: Count = Field(default=0, description="Frames under this plan that the un-split model was asked as well.")
    agreed: Count = Field(default=0, description="Those of them whose answers said the same.")
    avoided: list[Id] = Field(default_factory=list, description="Workers left alone because frames waited in vain.")
    counters: dict[str, Count] = Field(
        default_factory=dict, description="Since the start: answered, dropped, late, ..."
    )


class BlobRequest(Message):
    """A piece of a blob, please; sent to blob/get/<node>, answered at `reply_to`."""

    sha256: Sha256
    offset: Count = 0
    length: Annotated[int, Field(ge=1, le=BLOB_CHUNK_BYTES)] = BLOB_CHUNK_BYTES
    reply_to: Annotated[str, Field(pattern=BLOB_DATA_PATTERN)] = Field(
        description="Where the piece goes: the node's own topic blob/data/<node>/<boot>."
    )
