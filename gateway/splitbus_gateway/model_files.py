"""The registered models' own files, each model's in a folder of its own, and the store's references into them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Final

from splitbus_gateway.graph import ModelGraph, Weight, load_graph
from splitbus_gateway.graph.images import ImageInput, write_frames_model
from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import ModelError
from splitbus_schemas.ids import model_key
from splitbus_schemas.limits import MAX_BLOB_BYTES
from splitbus_schemas.messages import FileRef, WeightRef

_DECODED: Final = ".decoded"


class ModelFiles:
    """Below `folder`. Methods raise ModelError, those that write OSError too."""

    def __init__(self, folder: Path, store: BlobStore) -> None:
        self._folder = folder
        self._store = store

    def folder(self, model: str) -> Path:
        """Where a model's files lie."""
        return self._folder / model_key(model)

    @contextlib.contextmanager
    def taking_frames(self, path: Path, image: ImageInput | None) -> Iterator[Path]:
        """For as long as it is open, the model in `path`, made to take frames when an image is declared."""
        if image is None:
            yield path
            return
        with TemporaryDirectory(dir=self._folder, prefix=".") as folder:
            yield write_frames_model(path, image, Path(folder))

    def keep(self, graph: ModelGraph) -> ModelGraph:
        """Copy the model's files, and read the graph from the copies."""
        folder = self.folder(graph.sha256)
        if not folder.is_dir():
            temporary = Path(mkdtemp(dir=self._folder, prefix="."))
            try:
                _copy(graph.path.parent, temporary, (file.name for file in graph.files))
                with contextlib.suppress(FileExistsError):
                    temporary.rename(folder)
            except OSError as error:
                raise ModelError(f"{graph.path} cannot be copied to {folder}: {error.strerror or error}") from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        copy = load_graph(folder / graph.files[0].name, shapes={spec.name: spec.sizes for spec in graph.inputs})
        if copy.sha256 != graph.sha256:
            raise ModelError(f"{graph.path} changed while it was read: add it again")
        return copy

    def note(self, model: str, name: str, data: bytes) -> None:
        """Write something down beside a model's files; nothing removes what was there."""
        path = self.folder(model) / name
        if not data:
            path.unlink(missing_ok=True)
            return
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(data)
        temporary.replace(path)

    def drop(self, model: str) -> None:
        """Remove a model's files, whatever is left of them."""
        shutil.rmtree(self.folder(model), ignore_errors=True)

    def export(self, model: str, files: list[FileRef], target: Path, *, replace: bool) -> None:
        """Copy the main file to `target` and those of its external data beside it."""
        others = {file.name: target.parent / file.name for file in files[1:]}
        taken = [path for path in (target, *others.values()) if path.exists()]
        if taken and not replace:
            raise ModelError(f"{taken[0]} is there already: give another place, or --replace")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(self.folder(model), target.parent, others)
            shutil.copyfile(self.folder(model) / files[0].name, target)
        except OSError as error:
            raise ModelError(f"{target} cannot be written: {error.strerror or error}") from error

    def weights(self, graph: ModelGraph) -> list[WeightRef]:
        """Tell the store where a kept model's files and weights lie."""
        folder = graph.path.parent
        files = {folder / file.name: file.sha256 for file in graph.files}
        for path, sha in files.items():
            self._store.remember_file(sha, path)
        return [self._weight(weight, graph.sha256, files) for weight in graph.weights.values()]

    def _weight(self, weight: Weight, model: str, files: dict[Path, str]) -> WeightRef:
        if weight.nbytes > MAX_BLOB_BYTES:
            raise ModelError(f"weight {weight.name} has {weight.nbytes} bytes, the limit is {MAX_BLOB_BYTES}")
        sha, place = weight.sha256, {}
        if weight.file is None:  # a list of numbers in the model file: what is removed with the model, not evicted
            path = self.folder(model) / _DECODED / sha
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(weight.data)
            self._store.remember_file(sha, path)
        else:
            self._store.remember_file(sha, weight.file, weight.offset, weight.nbytes)
            place = {"file": files[weight.file], "offset": weight.offset}
        return WeightRef.model_validate(
            {"name": weight.name, "dtype": weight.dtype, "shape": weight.shape, "sha256": sha, "bytes": weight.nbytes}
            | place
        )


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
