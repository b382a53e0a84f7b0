"""Every pitfall on the page has a test, and every test that the page names exists."""

from __future__ import annotations

import ast
import re
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "pitfalls.md"
ROW = re.compile(r"^\| ([MPBC])(\d+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
LEAST = {"M": 13, "P": 6, "B": 5, "C": 5}
"""Pitfalls known when this was written; the page may grow."""

ROWS = [match.groups() for match in ROW.finditer(PAGE.read_text())]


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_no_pitfall_is_left_out() -> None:
    numbers = {kind: [int(row[1]) for row in rows] for kind, rows in groupby(ROWS, key=lambda row: row[0])}
    assert {kind: found == list(range(1, len(found) + 1)) for kind, found in numbers.items()} == dict.fromkeys(
        LEAST, True
    )
    assert all(len(numbers[kind]) >= count for kind, count in LEAST.items())


@pytest.mark.parametrize("row", ROWS, ids=[kind + number for kind, number, *_ in ROWS])
def test_a_pitfall_has_tests_that_exist(row: tuple[str, ...]) -> None:
    tests = TEST.findall(row[4])
    assert tests
    assert [f"{path}::{name}" for path, name in tests if name not in functions(ROOT / path)] == []
