"""The rows of the fault suite, and the page that shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.faults.record import Row, append, load, newest, runs, table
from tests.faults.report import BEGIN, END, complaints, named, recording, with_table
from tests.faults.report import PAGE as PAGE_FILE

ROW = Row("edge worker killed", "tests/faults/test_x.py::test_y", 3, (120.0, 80.0, 400.0), 90, 0, 0, 1, "to the answer")
PAGE = f"# Title\n{BEGIN}\nold\n{END}\nend\n"

rows_of = st.builds(
    Row,
    fault=st.text(max_size=20),
    test=st.text(max_size=20),
    runs=st.integers(0, 99),
    recovery_ms=st.lists(st.integers(0, 10_000).map(float), max_size=5).map(tuple),
    frames=st.integers(0, 9),
    lost=st.integers(0, 9),
    doubled=st.integers(0, 9),
    late=st.integers(0, 9),
    passed=st.booleans(),
    soak=st.booleans(),
)


@given(rows_of)
def test_a_row_comes_back_from_its_line(row: Row) -> None:
    assert Row.from_line(row.to_line()) == row
    assert "\n" not in row.to_line()


def test_rows_are_added_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "build" / "faults.jsonl"
    assert load(path) == []
    append([ROW], path)
    append([replace(ROW, runs=4)], path)
    assert [row.runs for row in load(path)] == [3, 4]


def test_the_newest_row_that_passed_counts_and_a_soak_before_a_short_run() -> None:
    older, failed, soak = replace(ROW, runs=1), replace(ROW, runs=2, passed=False), replace(ROW, runs=50, soak=True)
    assert newest([older, ROW, failed]) == [ROW]
    assert newest([soak, ROW]) == [soak]
    assert newest([ROW, soak]) == [soak]
    assert newest([failed]) == []


def test_the_table_gives_median_and_worst() -> None:
    line = table([ROW])[-1]
    assert "| 3 | 120 | 400 | 90 | 0 | 0 | 1 | to the answer |" in line
    assert "`test_x.py::test_y`" in line
    assert "| 3 | - | - |" in table([replace(ROW, recovery_ms=())])[-1]


def test_the_page_keeps_what_is_around_the_table() -> None:
    page = with_table(PAGE, [ROW])
    assert page.startswith(f"# Title\n{BEGIN}")
    assert page.endswith(f"{END}\nend\n")
    assert "old" not in page
    assert named(page) == {("test_x.py", "test_y")}
    with pytest.raises(ValueError, match="no <!-- faults: begin"):
        with_table("# Title\n", [ROW])


def test_the_page_and_the_suite_are_held_against_each_other(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_y(record): ...\ndef test_other(): ...\ndef test_new(record): ...\n")
    page = with_table(PAGE, [ROW, replace(ROW, test="tests/faults/test_x.py::test_gone")])
    assert complaints(page, recording(tmp_path)) == [
        "test_x.py::test_gone is named by the page, and is no test that makes a row",
        "test_x.py::test_new makes a row, and the page does not name it",
    ]


def test_every_test_that_the_page_names_is_there() -> None:
    page = PAGE_FILE.read_text()
    assert named(page), "the page shows nothing"
    assert named(page) <= recording()


def test_a_soak_runs_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPLITBUS_SOAK", raising=False)
    assert runs() == 3
    monkeypatch.setenv("SPLITBUS_SOAK", "1")
    assert runs() == 50
