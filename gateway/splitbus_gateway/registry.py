"""The registered models: their files, what was measured of them, and the store that serves them to nodes.

    <state_dir>/models/<name>.json      a ModelRecord; what is listed here is registered
    <state_dir>/files/<model key>/      the model's files under their own names
    <state_dir>/blobs/                  the blob store; it refers to the weights inside those files

Every process sees what another adds or removes, at the next `changed`.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, TypeAlias

from splitbus_gateway.graph import Cut, ModelGraph, cut_at, load_graph, useful_cuts
from splitbus_gateway.graph import TensorSpec as GraphTensor
from splitbus_gateway.graph.images import ImageInput
from splitbus_gateway.graph.memory import memory_bytes
from splitbus_gateway.inputs import Inputs, Offer
from splitbus_gateway.leak import rebuild_pictures
from splitbus_gateway.measures import Measure
from splitbus_gateway.model_files import ModelFiles
from splitbus_gateway.phases import CALIBRATING, MEASURING, REBUILDING, Telling, untold
from splitbus_gateway.records import CutRecord, ImageRecord, ModelRecord, Outdated, RebuiltRecord, read_record
from splitbus_gateway.samples import Given, sample_shapes
from splitbus_gateway.sizes import Measured, Progress
from splitbus_gateway.sizes import measure as measure_cuts
from splitbus_gateway.transform import Calibrated
from splitbus_gateway.transform.archive import ARCHIVE, read_archive, write_archive
from splitbus_gateway.transform.model import calibrate_cuts
from splitbus_runtime.places import stamp
from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import ModelError
from splitbus_schemas.ids import check_id, model_key
from splitbus_schemas.messages import FileRef, ModelCard, TensorSpec

log = logging.getLogger(__name__)

DEFAULT_SAMPLES: Final = 16
"""Eight can all keep their class under a codec that turns one frame in twelve."""

MAX_MODELS: Final = 32

Calibration: TypeAlias = tuple[int, int] | None

_FLOAT_BYTES: Final = 4


class Registry:
    """Models by name, below `state_dir`. Methods may be called from several threads, and raise ModelError.

    `samples` inputs are taken of a file of samples, or made up without one. Cuts that carry more than
    `max_input_ratio` times the bytes of the inputs, narrow integers taken for floats, are left out.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        store_limit_bytes: int | None = None,
        max_models: int = MAX_MODELS,
        samples: int = DEFAULT_SAMPLES,
        max_input_ratio: float = 1.0,
    ) -> None:
        self.store = BlobStore(state_dir / "blobs", limit_bytes=store_limit_bytes)
        self._models = state_dir / "models"
        self._state = state_dir
        self._files = ModelFiles(state_dir / "files", self.store)
        self._max_models = max_models
        self._samples = samples
        self._ratio = max_input_ratio
        self._lock = threading.RLock()
        self._stamps: dict[str, tuple[int, int]] = {}
        self._records: dict[str, ModelRecord] = {}
        self._outdated: dict[str, Outdated] = {}
        self._version = self._told = 0
        self._graphs: dict[str, ModelGraph] = {}
        self._transforms: dict[str, tuple[Calibration, dict[str, Calibrated]]] = {}
        for folder in (self._models, state_dir / "files"):
            folder.mkdir(parents=True, exist_ok=True)
        self.changed()

    # Reading

    def changed(self) -> bool:
        """Whether a model was added, replaced or removed since the last call, by this process or another."""
        with self._lock:
            self._refresh()
            told, self._told = self._told, self._version
            return told != self._version

    def list(self) -> tuple[ModelRecord, ...]:
        """All models, by name."""
        with self._lock:
            self._refresh()
            return tuple(record for _, record in sorted(self._records.items()))

    def get(self, name: str) -> ModelRecord:
        """The model of that name. Raises ModelError."""
        records = {record.name: record for record in self.list()}
        record = records.get(name)
        if record is None and name in self._outdated:
            raise ModelError(self._outdated[name].remedy)
        if record is None:
            known = ", ".join(records) or "none"
            raise ModelError(f"no model {name!r} is registered; registered are {known}: use splitbus model add")
        return record

    def outdated(self) -> tuple[Outdated, ...]:
        """The models that another version wrote down, which are not served until they are added again."""
        with self._lock:
            self._refresh()
            return tuple(found for _, found in sorted(self._outdated.items()))

    def find_by_hash(self, model: str) -> ModelRecord | None:
        """A registered model by its identity, or by its key in topics."""
        return next((record for record in self.list() if model in (record.model, model_key(record.model))), None)

    def graph(self, model: str) -> ModelGraph:
        """The graph of a registered model, by its identity. Raises ModelError."""
        with self._lock:
            graph = self._graphs.get(model)
            if graph is None:
                record = self.find_by_hash(model)
                if record is None:
                    raise ModelError(f"model {model_key(model)} is not registered: use splitbus model add")
                path = self._files.folder(record.model) / record.card.files[0].name
                graph = load_graph(path, shapes=record.shapes)
                if graph.sha256 != record.model:
                    raise ModelError(f"{path} was changed: remove model {record.name} and add it again")
                self._graphs[model] = graph
            return graph

    # Writing

    def add(
        self,
        name: str,
        path: Path,
        samples: Given | None = None,
        *,
        image: ImageInput | None = None,
        calibrate: Given | None = None,
        labels: Path | None = None,
        measure: Measure | None = None,
        replace: bool = False,
        progress: Telling = untold,
    ) -> ModelCard:
        """Register the model in a file: copy, cut and measure it. The same model and samples are not measured again.

        `calibrate` gives real inputs from which the transform codec is found; without samples, it is found from one
        half of them, and the other half is what everything is measured on. `labels` (see `labels.read_labels`) give the
        accuracy as well, a `measure` says which answers are the same. With an `image` it is first made to take
        frames, which gives a model of its own. Raises ModelError for a bad model, for samples that do not fit it, and,
        unless `replace`, for a name that another model has; ConfigError for a name that cannot stand in a topic.
        """
        check_id("model name", name)
        try:
            with self._files.taking_frames(path, image) as made:
                graph = _load(made, calibrate if samples is None else samples)
                inputs = Offer(samples, calibrate, labels, measure).inputs(graph.inputs, self._samples)
                digest = inputs.digest
                known = self._known(name, graph, replace=replace)
                if known is not None and _is_as_measured(known, graph, digest, inputs):
                    return known.card
                graph = self._files.keep(graph)
            try:
                added = _Added(name, path, image, calibrate if samples is None else samples, digest)
                record = self._record(added, graph, inputs, progress)
                self._write(record)
            finally:
                self._drop_files(graph.sha256)
        except OSError as error:
            raise ModelError(f"{self._state} does not take model {name}: {error.strerror or error}") from error
        if known is not None:
            self._drop_files(known.model)
        return record.card

    def transforms(self, model: str) -> Mapping[str, Calibrated]:
        """What was calibrated of a registered model's tensors, by name. Raises ModelError."""
        marked = self.calibrated(model)
        with self._lock:
            found = self._transforms.get(model)
            if found is None or found[0] != marked:
                data = (self._files.folder(model) / ARCHIVE).read_bytes() if marked else b""
                found = self._transforms[model] = marked, read_archive(data) if marked else {}
            return found[1]

    def calibrated(self, model: str) -> Calibration:
        """What tells one calibration of a model from the next; None when there is none."""
        return stamp(self._files.folder(model) / ARCHIVE)

    def remove(self, name: str) -> None:
        """Forget a model and its files. Raises ModelError when there is none of that name."""
        outdated = {found.card.name: found for found in self.outdated()}
        model = outdated[name].card.model if name in outdated else self.get(name).model
        (self._models / f"{name}.json").unlink(missing_ok=True)
        self._drop_files(model)

    def export(self, name: str, target: Path, *, replace: bool = False) -> ModelCard:
        """Write a model's file to `target`, and those of its external data beside it. Raises ModelError."""
        record = self.get(name)
        self._files.export(record.model, record.card.files, target, replace=replace)
        return record.card

    # Inside

    def _refresh(self) -> None:
        paths = {path.stem: path for path in sorted(self._models.glob("*.json"))}
        stamps = {name: found for name, path in paths.items() if (found := stamp(path))}
        for name in {*stamps, *self._stamps}:
            if stamps.get(name) != self._stamps.get(name):
                self._reload(name, paths.get(name))
                self._version += 1
        self._stamps = stamps

    def _reload(self, name: str, path: Path | None) -> None:
        old = self._records.pop(name, None)
        self._outdated.pop(name, None)
        if old is not None:
            self._graphs.pop(old.model, None)
            self._transforms.pop(old.model, None)
        if path is None:
            return
        try:
            found = read_record(path.read_bytes())
        except (OSError, ModelError) as error:
            log.warning(
                "%s cannot be read, so its model is left out (%s): remove the file, add the model again", path, error
            )
            return
        if isinstance(found, Outdated):
            log.warning("%s", found.remedy)
            self._outdated[name] = found
        else:
            self._records[name] = found

    def _known(self, name: str, graph: ModelGraph, *, replace: bool) -> ModelRecord | None:
        """The record of that name, if there is one."""
        records = {record.name: record for record in self.list()}
        record = records.get(name)
        if record is None and len(records) >= self._max_models:
            raise ModelError(f"{self._max_models} models are registered already: remove one, or raise max_models")
        if record is not None and record.model != graph.sha256 and not replace:
            raise ModelError(
                f"the name {name} belongs to another model, added from {record.source}: give another name, or --replace"
            )
        return record

    def _record(self, added: _Added, graph: ModelGraph, inputs: Inputs, progress: Telling) -> ModelRecord:
        useful = useful_cuts(graph, ratio=self._ratio * _narrowness(graph))
        start = cut_at(graph, 0)
        cuts = (start, *useful.cuts) if start.legal else ()
        calibrating, measuring, rebuilding = (partial(progress, name) for name in (CALIBRATING, MEASURING, REBUILDING))
        transforms = calibrate_cuts(graph, cuts, inputs.calibration, progress=calibrating) if inputs.calibration else {}
        measured = _measure(graph, cuts, inputs, transforms, measuring, made_up=added.samples is None)
        rebuilt = RebuiltRecord.of(rebuild_pictures(graph, cuts, inputs.given, progress=rebuilding))
        self._files.note(graph.sha256, ARCHIVE, write_archive(transforms) if transforms else b"")
        *memory, whole_memory = memory_bytes(graph, [*(cut.index for cut in cuts), graph.steps])
        card = ModelCard(
            name=added.name,
            model=graph.sha256,
            files=[FileRef(name=file.name, sha256=file.sha256, bytes=file.size) for file in graph.files],
            inputs=[_spec(spec) for spec in graph.inputs],
            outputs=[_spec(graph.types.specs[n]) for n in graph.outputs if n in graph.types.specs],
            nodes=graph.steps,
            cuts=[cut.index for cut in cuts],
            whole_because=useful.reason or None,
            made_from=added.made_from(graph),
        )
        return ModelRecord(
            card=card,
            source=str(added.path.resolve()),
            image=ImageRecord.of(added.image) if added.image else None,
            added=datetime.now(UTC).isoformat(timespec="seconds"),
            samples=_label(added.samples),
            sample_count=len(inputs.measured),
            samples_sha256=added.digest,
            shapes={spec.name: list(spec.sizes) for spec in graph.inputs},
            steps=graph.steps,
            cuts=[_cut_record(*pair) for pair in zip(cuts, memory, strict=True)],
            weights=self._files.weights(graph),
            memory_bytes=whole_memory,
            whole_ms=measured.whole_ms,
            answer_bytes=measured.answer_bytes,
            sizes=list(measured.sizes),
            accuracy=measured.accuracy,
            measure=inputs.judge.measure.name if inputs.judge.measure else None,
            rebuilt=rebuilt if inputs.given else None,
        )

    def _write(self, record: ModelRecord) -> None:
        with NamedTemporaryFile(dir=self._models, suffix=".tmp", delete=False) as file:
            file.write(record.model_dump_json(indent=1, exclude_none=True).encode())
        Path(file.name).replace(self._models / f"{record.name}.json")

    def _drop_files(self, model: str) -> None:
        """Remove a model's files unless a name needs them. Others' are left: they may be about to get their name."""
        if self.find_by_hash(model) is None:
            self._files.drop(model)


@dataclass(frozen=True)
class _Added:
    """What a model is added as."""

    name: str
    path: Path
    image: ImageInput | None
    samples: Given | None
    digest: str

    def made_from(self, graph: ModelGraph) -> str | None:
        """The hash of the file that it was added from, when its own main file is another."""
        if self.image is None:
            return None
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return None if digest == graph.files[0].sha256 else digest


def _is_as_measured(known: ModelRecord, graph: ModelGraph, digest: str, inputs: Inputs) -> bool:
    """Whether measuring again would find what is written down; an earlier version did not rebuild pictures."""
    as_then = (known.model, known.samples_sha256) == (graph.sha256, digest)
    return as_then and (known.rebuilt is not None or not inputs.given)


def _narrowness(graph: ModelGraph) -> float:
    """How many times more bytes the inputs would have as floats, which what crosses the cuts mostly is."""
    own = sum(spec.nbytes for spec in graph.inputs)
    as_floats = sum(max(spec.nbytes, spec.elements * _FLOAT_BYTES) for spec in graph.inputs)
    return as_floats / own if own else 1.0


def _load(path: Path, samples: Given | None) -> ModelGraph:
    graph = load_graph(path)
    shapes = sample_shapes(samples, graph.inputs) if samples is not None else {}
    return load_graph(path, shapes=shapes) if shapes else graph


def _measure(
    graph: ModelGraph,
    cuts: Sequence[Cut],
    inputs: Inputs,
    transforms: Mapping[str, Calibrated],
    progress: Progress,
    *,
    made_up: bool,
) -> Measured:
    try:
        return measure_cuts(graph, cuts, inputs.measured, transforms=transforms, judge=inputs.judge, progress=progress)
    except ModelError as error:
        hint = "; it may not take made-up inputs: give some with --samples" if made_up else ""
        raise ModelError(f"{graph.files[0].name} cannot be measured: {error}{hint}") from error


def _label(samples: Given | None) -> str:
    if samples is None:
        return "synthetic"
    return str(samples.resolve()) if isinstance(samples, Path) else "given"


def _spec(spec: GraphTensor) -> TensorSpec:
    shape = [dim if isinstance(dim, int) else None for dim in spec.shape]
    return TensorSpec(name=spec.name, dtype=spec.dtype, shape=shape)


def _cut_record(cut: Cut, memory: int) -> CutRecord:
    return CutRecord(
        index=cut.index,
        tensors=[_spec(t) for t in cut.tensors],
        bytes=cut.nbytes,
        after=cut.after,
        memory_bytes=memory,
    )
