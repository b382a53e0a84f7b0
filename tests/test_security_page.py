"""docs/security.md names a test behind each line; the test is there, and no line is without."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(\w+/\w+\.py)::(test_\w+)`")


def test_each_line_of_the_tables_names_a_test_that_is_there() -> None:
    sections = PAGE.split("shown by `tests/` |")[1:]
    rows = [line for part in sections for line in part.partition("\n\n")[0].splitlines()[2:]]
    assert len(rows) > 25
    for row in rows:
        found = NAMED.search(row.rpartition("|")[0].rpartition("|")[2])
        assert found, f"no test behind: {row}"
        source = ROOT / "tests" / found[1]
        assert source.is_file(), row
        assert f"def {found[2]}(" in source.read_text(encoding="utf-8"), row
