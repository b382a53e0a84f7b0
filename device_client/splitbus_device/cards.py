"""The registered models as their retained cards tell, and the files that belong to a card."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile

from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import BlobError, DecodeError, ModelError
from splitbus_schemas.messages import ModelCard


class Cards:
    """The cards seen so far. Thread-safe."""

    def __init__(self) -> None:
        self._cards: dict[str, ModelCard] = {}
        self._changed = threading.Condition()
        self._closed = False

    def note(self, name: str, payload: bytes) -> None:
        """A card came; an empty one means that the model was removed. Raises DecodeError."""
        card = ModelCard.from_json(payload) if payload else None
        if card is not None and (card.name != name or not card.files):
            raise DecodeError(f"ModelCard of {name} names {card.name!r} and {len(card.files)} files")
        with self._changed:
            self._cards.pop(name, None)
            if card is not None:
                self._cards[name] = card
            self._changed.notify_all()

    def wait(self, fits: Callable[[ModelCard], bool], timeout: float | None = None) -> ModelCard | None:
        """The first card that fits; None after `timeout` seconds, or when closed."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._closed:
                found = next((card for card in self._cards.values() if fits(card)), None)
                left = None if until is None else until - time.monotonic()
                if found is not None or (left is not None and left <= 0):
                    return found
                self._changed.wait(left)
            return None

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def files_of(card: ModelCard, folder: Path) -> Iterator[tuple[str, Path]]:
    """Hash and path of each file of a model whose files lie in `folder`. Raises ModelError for a path outside of it."""
    for file in card.files:
        name = PurePosixPath(file.name)
        if not name.parts or name.is_absolute() or ".." in name.parts:
            raise ModelError(
                f"model {card.name} has a file {file.name!r}: a path below the model's folder was expected"
            )
        yield file.sha256, folder / name


def lay_out(card: ModelCard, store: BlobStore, folder: Path) -> Path:
    """Put a model's files where onnxruntime finds them by name; gives the main file. Raises BlobError or ModelError."""
    for sha256, path in files_of(card, folder):
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                _link(store.path(sha256), path)
            except OSError as error:
                raise BlobError(f"{path} cannot be written: {error.strerror or error}") from error
    return folder / card.files[0].name


def keep(card: ModelCard, path: Path) -> None:
    """Write a card down for a start without a broker. Raises BlobError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(card.to_json())
        Path(file.name).replace(path)
    except OSError as error:
        raise BlobError(f"{path} cannot be written: {error.strerror or error}") from error


def kept(path: Path) -> ModelCard | None:
    """The card that was written down; None when there is none that can be read."""
    try:
        return ModelCard.from_json(path.read_bytes())
    except (OSError, DecodeError):
        return None


def _link(source: Path, target: Path) -> None:
    """A second name for the file, or a copy where the file system has no such thing."""
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        part.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, part)
    part.replace(target)
