"""The right answers of samples, for models whose answers are class scores."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from splitbus_gateway.samples import Given, chosen_pictures, chosen_rows
from splitbus_schemas.errors import ModelError

FOLDERS: Final = Path("folders")
"""In place of a file: each picture lies in a folder that names its class."""


def read_labels(labels: Path, source: Given, count: int, limit: int) -> list[int]:
    """The class index of each of the `count` samples that `read_samples` takes of `source`.

    A .csv has rows of path (or file name) and index, for pictures; an .npy has an index for each sample, in order;
    FOLDERS takes folders called by indices as they are, and others by their place in the alphabet. Raises ModelError.
    """
    pictures = chosen_pictures(source, limit) if isinstance(source, Path) else []
    if labels == FOLDERS:
        return _of_folders(pictures, source)
    if labels.suffix.lower() == ".npy":
        return _in_order(labels, count, limit if isinstance(source, Path) else count)
    if not pictures or not isinstance(source, Path):
        raise ModelError(f"{labels} names files, the samples are arrays: give an .npy with a class index for each")
    known = _read_csv(labels)
    return [_of_picture(path, source, known, labels) for path in pictures]


def _of_folders(pictures: Sequence[Path], source: Given) -> list[int]:
    if not isinstance(source, Path) or not pictures or any(path.parent == source for path in pictures):
        raise ModelError("--labels folders takes a folder with one folder of pictures for each class")
    names = sorted(path.name for path in source.iterdir() if path.is_dir())
    classes = {name: int(name) if all(n.isdecimal() for n in names) else place for place, name in enumerate(names)}
    return [classes[path.parent.name] for path in pictures]


def _in_order(path: Path, count: int, limit: int) -> list[int]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path} holds no labels: write class indices with numpy.save") from error
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ModelError(f"{path} holds {found.dtype}{list(found.shape)}: give one whole number for each sample")
    rows = chosen_rows(len(found), limit)
    if len(rows) != count:
        raise ModelError(f"{path} holds {len(found)} labels, which are not as many as the samples")
    return [int(found[row]) for row in rows]


def _read_csv(path: Path) -> dict[str, int]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.reader(lines) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelError(f"{path} cannot be read as labels: give a .csv with rows of path and class index") from error
    if rows and (len(rows[0]) < 2 or not rows[0][1].strip().isdecimal()):
        rows = rows[1:]  # a line of titles
    bad = next((row for row in rows if len(row) < 2 or not row[1].strip().isdecimal()), None)
    if bad is not None or not rows:
        what = ",".join(bad) if bad else "nothing"
        raise ModelError(f"{path} has the row {what}: give a path and a class index, a whole number, in each")
    return {row[0].strip(): int(row[1]) for row in rows}


def _of_picture(path: Path, source: Path, known: dict[str, int], labels: Path) -> int:
    for name in (path.relative_to(source).as_posix(), path.name):
        if name in known:
            return known[name]
    raise ModelError(f"{labels} has no row for {path.name}: give each picture its path and class index")
