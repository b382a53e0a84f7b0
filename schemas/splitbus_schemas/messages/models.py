"""Models, their slices, and the files that these are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from splitbus_schemas.limits import MAX_BLOB_BYTES, MAX_TABLES_BYTES
from splitbus_schemas.messages.base import Count, Id, Message, Part, Sha256, Signature


class TensorSpec(Part):
    """A tensor as a slice takes or gives it."""

    name: str
    dtype: str = Field(description="numpy's name: float32, uint8, ...")
    shape: list[Count | None] = Field(description="None where the size is known only at run time.")
    final: bool = Field(default=False, description="It belongs to the model's answer and is passed on unchanged.")


class FileRef(Part):
    """A file that a model consists of."""

    name: str
    sha256: Sha256
    bytes: Count


class WeightRef(Part):
    """A weight of a slice: a blob by hash, and where its bytes lie for a node that holds the model's files."""

    name: str
    dtype: str
    shape: list[Count]
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]
    file: str | None = Field(default=None, description="SHA-256 of the model file that holds the bytes.")
    offset: Count | None = Field(default=None, description="Where in that file they begin.")


class TablesRef(Part):
    """The statistics that a tensor's coefficients are coded with: a blob by hash."""

    tensor: str = Field(description="Name of the coefficients, among the slice's inputs or outputs.")
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, le=MAX_TABLES_BYTES)]


class SliceManifest(Message):
    """A slice: its graph and its weights by hash. The SHA-256 of this document is the slice's name."""

    model: Sha256
    first: Count = Field(description="Cut index at which the slice begins; 0 is the model's input.")
    last: Count = Field(description="Cut index at which it ends.")
    codec_in: str
    codec_out: str
    graph: Sha256
    graph_bytes: Count
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    weights: list[WeightRef]
    tables: list[TablesRef] = Field(default_factory=list, description="What the codings t1 to t12 need.")
    signature: Signature = None


class ModelCard(Message):
    """A registered model: retained at model/<name>."""

    name: Id
    model: Sha256 = Field(description="The model's identity: SHA-256 over its files' hashes, or of its one file.")
    files: list[FileRef]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    nodes: Count = Field(description="How many nodes its graph has.")
    cuts: list[Count] = Field(description="Indices of the cuts that the planner considers.")
    whole_because: str | None = Field(default=None, description="Why the model is served whole, when it is.")
    made_from: Sha256 | None = Field(
        default=None, description="The file that its main file was made from, so that frames enter as uint8 pictures."
    )
    signature: Signature = None
