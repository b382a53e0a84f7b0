"""Counts by name in a small file that survives a power cut: replaced whole, never half written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_tally(path: Path) -> dict[str, int]:
    """What the file holds; nothing when it is missing or damaged, and no entry that is no count."""
    try:
        data: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    pairs = data.items() if isinstance(data, dict) else ()
    return {name: count for name, count in pairs if isinstance(count, int) and count >= 0}


def write_tally(path: Path, tally: Mapping[str, int]) -> None:
    """Replace the file. Raises OSError; the old one is then still whole."""
    part = path.with_suffix(".part")
    with part.open("w") as file:
        json.dump(tally, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
