"""Documents of a megabyte with a mistake in every place: the first is told, and the rest cost nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from splitbus_schemas import messages as m
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.limits import MAX_JSON_BYTES

MEGABYTES = 96
"""What reading one may add to the process. The document itself as Python's objects is 60 MB of it."""

MEASURE = """
import resource, sys
from splitbus_schemas import messages as m
from splitbus_schemas.errors import DecodeError
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    getattr(m, sys.argv[1]).from_json(data)
except DecodeError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10, error)
"""


def filled(before: str, item: str, after: str) -> bytes:
    count = (MAX_JSON_BYTES - len(before) - len(after)) // (len(item) + 1)
    return (before + ",".join([item] * count) + after).encode()


BOMBS = {
    "empty parts": ("NodeWork", filled('{"profiles":[', "{}", "]}"), "profiles.0.model: Field required"),
    "numbers for parts": ("NodeWork", filled('{"profiles":[', "0", "]}"), "profiles.0"),
    "numbers for hashes": ("NodeWork", filled('{"slices":[', "0", "]}"), "slices.0"),
    "a list in a list": ("Plan", filled('{"routes":[[', "{}", "]]}"), "Field required"),
    "nothing else": ("Plan", filled('{"steps":[', "{}", "]}"), "plan: Field required"),
    "a map": (
        "SliceState",
        json.dumps({"failed": {str(n): 0 for n in range(80_000)}}).encode(),
        "80002 values are wrong",
    ),
    "depth": ("NodeWork", b'{"slices":' + b"[" * 500_000 + b"]" * 500_000 + b"}", "Invalid JSON"),
}


@pytest.mark.parametrize(("kind", "data", "complaint"), BOMBS.values(), ids=BOMBS)
def test_a_document_of_mistakes_costs_little(kind: str, data: bytes, complaint: str) -> None:
    """WIRE-40"""
    assert len(data) <= MAX_JSON_BYTES
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, kind], input=data, capture_output=True, check=True, timeout=30
    )
    grown, _, error = done.stdout.decode().partition(" ")
    assert complaint in error
    assert int(grown) < MEGABYTES


def test_a_list_is_read_up_to_its_first_mistake() -> None:
    good = "0" * 64
    with pytest.raises(DecodeError, match=r"slices\.1: "):
        m.NodeWork.from_json(json.dumps({"slices": [good, "x", 7]}).encode())
    assert m.NodeWork.from_json(json.dumps({"slices": [good] * 3}).encode()).slices == [good] * 3
