"""The table in docs/reliability.md: `python -m tests.faults.report` writes it from build/faults.jsonl.

`--check` says whether every test that the page names is there, and whether the page names every test of the suite
that makes a row.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tests.faults.record import ROOT, Row, load, newest, table

PAGE: Final = ROOT / "docs" / "reliability.md"
SUITE: Final = Path(__file__).resolve().parent
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
_NAMED: Final = re.compile(r"`(?:tests/faults/)?(test_\w+\.py)::(test_\w+)[^`]*`")


def with_table(page: str, rows: Sequence[Row]) -> str:
    """The page with these rows between its markers. Raises ValueError when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no {BEGIN} before {END}: put them where the table belongs")
    places = sorted({(row.machine, row.date, "soak" if row.soak else "short suite") for row in rows})
    said = "; ".join(f"{kind} of {date} on {machine}" for machine, date, kind in places)
    lines = ["", f"As printed by the {said}.", "", *table(rows), ""] if rows else ["", "Nothing was run yet.", ""]
    return before + begin + "\n".join(lines) + end + after


def named(page: str) -> set[tuple[str, str]]:
    """File and function of every test of the suite that the page names."""
    return {(file, test) for file, test in _NAMED.findall(page)}


def recording(folder: Path = SUITE) -> set[tuple[str, str]]:
    """File and function of every test that makes a row: those that ask for the fixture `record`."""
    return {
        (path.name, function.name)
        for path in sorted(folder.glob("test_*.py"))
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        and function.name.startswith("test_")
        and "record" in {argument.arg for argument in function.args.args}
    }


def complaints(page: str, tests: Iterable[tuple[str, str]]) -> list[str]:
    """What the page names and is not there, and what is there and it does not name."""
    there, found = set(tests), named(page)
    gone = [f"{file}::{test} is named by the page, and is no test that makes a row" for file, test in found - there]
    new = [f"{file}::{test} makes a row, and the page does not name it" for file, test in there - found]
    return sorted(gone + new)


def main(arguments: Sequence[str]) -> int:
    page = PAGE.read_text()
    if "--check" in arguments:
        found = complaints(page, recording())
        for line in found:
            sys.stderr.write(f"{PAGE.name}: {line}\n")
        return 1 if found else 0
    PAGE.write_text(with_table(page, newest(load())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
