"""Counts by name in a small file that survives a power cut: replaced whole, never half written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splitbus_runtime.whole_file import write_whole


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
    write_whole(path, json.dumps(tally, indent=1, sort_keys=True).encode())
