"""What the registry writes down of a model: its card, its cuts, its weights and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
from pydantic import Field, ValidationError

from splitbus_gateway.facts import ModelFacts
from splitbus_gateway.graph.images import Color, ImageInput, Layout
from splitbus_gateway.leak import Likeness, Rebuilt
from splitbus_gateway.problem import Codings, Floats, SecondLook
from splitbus_gateway.promise import at_least
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.errors import ModelError
from splitbus_schemas.messages import Count, Fraction, Milliseconds, ModelCard, Part, Sha256, TensorSpec, WeightRef

FORMAT: Final = 2
"""Of a record. Format 1 counted steps in another order, so that its cut indices mean other cuts."""


class CodedSize(Part):
    """A codec at a cut, as measured on the samples, one thread, on the gateway's machine."""

    cut: Count
    codec: str
    p50_bytes: Count = Field(description="The whole packet; both of a frame that is sent again.")
    p90_bytes: Count
    encode_ms: Milliseconds
    decode_ms: Milliseconds
    agreement: Fraction = Field(description="Share of answers that stay the same.")
    error: float | None = Field(
        default=None, description="Largest relative error of an output; none when it is not finite."
    )
    mean_bytes: Count | None = Field(default=None, description="The whole packet; none from before it was kept.")
    accuracy: Fraction | None = Field(default=None, description="Share of right answers, where labels were given.")
    again: Fraction | None = Field(
        default=None,
        description="Share of answers in doubt, whose frames are sent again; none where all are sent once.",
    )
    below: float | None = Field(
        default=None, description="An answer is in doubt whose best score leads the second best by less."
    )

    @property
    def bytes_a_frame(self) -> int:
        """On average, or the median from before that was kept."""
        return self.p50_bytes if self.mean_bytes is None else self.mean_bytes


class CutRecord(Part):
    """A cut that the planner considers."""

    index: Count
    tensors: list[TensorSpec]
    bytes: Count = Field(description="Of the tensors as they are.")
    after: str = Field(description="The node before the cut.")
    memory_bytes: Count = Field(description="Of what comes before it: its weights, and the most tensors alive at once.")


class ShownCut(Part):
    """How alike the pictures are that a decoder rebuilds from what crosses a cut."""

    cut: Count
    ssim: float = Field(description="Structural similarity, 1 for the picture itself.")
    psnr_db: float
    measured_at: Count = Field(description="The cut where it was found; it bounds this one.")


class RebuiltRecord(Part):
    """How well pictures are rebuilt from what crosses the cuts, by a decoder fitted on one half of them."""

    why_not: str = Field(default="", description="Why there are no figures.")
    fitted: Count = Field(default=0, description="Pictures that the decoder was fitted on.")
    reported: Count = Field(default=0, description="Others, which it rebuilt.")
    nothing_ssim: float = Field(default=0.0, description="Of the mean picture: what seeing nothing reaches.")
    nothing_psnr_db: float = 0.0
    cuts: list[ShownCut] = Field(default_factory=list)

    @classmethod
    def of(cls, rebuilt: Rebuilt) -> RebuiltRecord:
        """What is written down of `rebuilt`."""
        nothing = rebuilt.nothing or Likeness(0.0, 0.0)
        return cls(
            why_not=rebuilt.why_not,
            fitted=rebuilt.fitted,
            reported=rebuilt.reported,
            nothing_ssim=nothing.ssim,
            nothing_psnr_db=nothing.psnr_db,
            cuts=[
                ShownCut(
                    cut=shown.cut,
                    ssim=shown.likeness.ssim,
                    psnr_db=shown.likeness.psnr_db,
                    measured_at=shown.measured_at,
                )
                for shown in rebuilt.cuts
            ],
        )


class ImageRecord(Part):
    """How the model was made to take frames: (pixel * scale - mean) / std."""

    input: str
    mean: list[float]
    std: list[float]
    scale: str = Field(description="As a fraction: 1/255 or 1.")
    layout: Layout | None = Field(default=None, description="Of its source; none when the input's shape told.")
    color: Color
    size: list[Count] | None = Field(default=None, description="Width and height, where its source left them open.")

    @classmethod
    def of(cls, image: ImageInput) -> ImageRecord:
        """What is written down of `image`."""
        return cls(
            input=image.name,
            mean=list(image.mean),
            std=list(image.std),
            scale=str(image.scale),
            layout=image.layout,
            color=image.color,
            size=list(image.size) if image.size else None,
        )


class ModelRecord(Part):
    """A registered model: one file models/<name>.json in the gateway's state folder."""

    format: Literal[2] = Field(default=FORMAT, description="Of this file.")
    card: ModelCard
    source: str = Field(description="The file that it was added from.")
    image: ImageRecord | None = Field(default=None, description="How frames become its input, when that was added.")
    added: str = Field(description="When, ISO 8601.")
    samples: str = Field(description="What it was measured on; `synthetic` for random inputs.")
    sample_count: Count
    samples_sha256: Sha256 = Field(description="Of their names and bytes: the same samples are not measured again.")
    shapes: dict[str, list[Count]] = Field(description="The input shapes that everything was measured for.")
    steps: Count = Field(description="Index of the last cut, the model's end.")
    cuts: list[CutRecord]
    weights: list[WeightRef]
    memory_bytes: Count = Field(description="Of the whole model, as of what comes before a cut.")
    whole_ms: Milliseconds
    answer_bytes: Count
    sizes: list[CodedSize]
    accuracy: Fraction | None = Field(default=None, description="Of the un-split model, where labels were given.")
    measure: str | None = Field(default=None, description="The owner's function that says which answers are the same.")
    rebuilt: RebuiltRecord | None = Field(
        default=None, description="What cuts show of the picture; none when it was not calibrated."
    )

    @property
    def name(self) -> str:
        """As registered."""
        return self.card.name

    @property
    def model(self) -> str:
        """The model's identity."""
        return self.card.model

    def proven(self, size: CodedSize) -> float:
        """The agreement that the samples prove of a coding, with 95 % confidence; 1 where nothing is lost."""
        kept = min(round(size.agreement * self.sample_count), self.sample_count)
        return 1.0 if CODECS[size.codec].lossless else at_least(kept, self.sample_count)

    def facts(self, codecs: Sequence[str] = tuple(CODECS), *, proven: bool = False) -> ModelFacts:
        """What the planner is told, with these codecs only; with `proven`, of agreement no more than is proven."""
        rows = [cut.index for cut in self.cuts]
        tensors = {cut.index: tuple(tensor.name for tensor in cut.tensors) for cut in self.cuts}
        memory = np.array([*(cut.memory_bytes for cut in self.cuts), self.memory_bytes]) / 2**20
        shown = {cut.cut: cut.ssim for cut in self.rebuilt.cuts} if self.rebuilt else {}
        return ModelFacts(
            self.name,
            self.model,
            self._codings(codecs, proven=proven),
            self.whole_ms,
            self.answer_bytes,
            tensors,
            memory,
            rebuilt=np.array([shown.get(row, np.nan) for row in rows]) if shown else None,
        )

    def _codings(self, codecs: Sequence[str], *, proven: bool) -> Codings:
        rows = [cut.index for cut in self.cuts]
        found = {(size.cut, size.codec): size for size in self.sizes}
        # What is sent at first, and again, is what other codecs send at once.
        first = {cell: found.get((cell[0], _at_first(cell[1]))) for cell in found}
        again = {cell: found.get((cell[0], CODECS[cell[1]].again)) for cell in found}

        def column(name: str, of: Mapping[tuple[int, str], CodedSize | None] = found) -> Floats:
            figures = [[getattr(of.get((row, codec)), name, None) for codec in codecs] for row in rows]
            return np.array(figures, np.float64).reshape(len(rows), len(codecs))

        judged = {cell: self.proven(size) if proven else size.agreement for cell, size in found.items()}
        kept = [[judged.get((row, codec), np.nan) for codec in codecs] for row in rows]
        shares = column("again")
        return Codings(
            cuts=(*rows, self.steps),
            codecs=tuple(codecs),
            coded_bytes=column("p50_bytes", first),
            encode_ms=column("encode_ms", first),
            decode_ms=column("decode_ms", first),
            agreement=np.array(kept, np.float64).reshape(shares.shape),
            lossless=np.broadcast_to([CODECS[codec].lossless for codec in codecs], shares.shape),
            second=SecondLook(
                np.nan_to_num(shares),
                column("below"),
                column("p50_bytes", again),
                column("encode_ms", again),
                column("decode_ms", again),
            )
            if np.isfinite(shares).any()
            else None,
        )


def _at_first(codec: str) -> str:
    """The codec that sends at once what this one sends at first."""
    return CODECS[codec].coding if CODECS[codec].again else codec


class Outdated(Part):
    """What every format of a record has: enough to name it, and to say how it is added again."""

    format: int
    card: ModelCard
    source: str

    @property
    def remedy(self) -> str:
        """One sentence."""
        return (
            f"model {self.card.name} was added by another version of splitbus (its record has format {self.format}, "
            f"this program reads {FORMAT}): add it again with splitbus model add {self.card.name} {self.source}"
        )


def read_record(data: bytes) -> ModelRecord | Outdated:
    """The record in `data`, or what can be read of one of another format. Raises ModelError for what is none."""
    try:
        found = Outdated.model_validate_json(data)
        return ModelRecord.model_validate_json(data) if found.format == FORMAT else found
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise ModelError(f"{place}: {first['msg']}") from error
