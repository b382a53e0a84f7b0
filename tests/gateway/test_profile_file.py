"""Profiles as files, taken of a real model: what is written is read, and what cannot be true is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import models

from splitbus_gateway.cut_times import measure_cuts
from splitbus_gateway.graph import load_graph
from splitbus_gateway.local_profile import LocalSlices, profile_here
from splitbus_gateway.profile_file import ProfileFile, check_profile, elapsed_at
from splitbus_gateway.profiling import ANCHORS, anchor_cuts
from splitbus_runtime.profiler import Stopwatch
from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.messages import NodeProfile


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> ProfileFile:
    graph = load_graph(models.save(models.chain(), tmp_path_factory.mktemp("model")))
    return profile_here(graph, threads=1, slowdown=2.0)


def test_a_profile_says_what_it_is_of(found: ProfileFile) -> None:
    assert (found.threads, found.slowdown, found.profile.round) == (1, 2.0, 0)
    assert len(found.after) == len(found.profile.cuts)
    assert sum(found.profile.block_ms) == pytest.approx(found.profile.whole_ms, rel=0.01, abs=0.002)
    assert found.profile.local_ms is not None
    check_profile(found.profile)


def test_what_is_written_is_read(found: ProfileFile, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(found.to_json())
    again = ProfileFile.load(path, model=found.profile.model)
    assert again == found
    cuts = [0, found.profile.cuts[1], found.profile.cuts[-1]]
    expected = [0.0, sum(found.profile.block_ms[:2]), sum(found.profile.block_ms)]
    assert again.elapsed_ms(cuts) == pytest.approx(np.array(expected))


def test_a_cut_inside_a_block_is_refused(found: ProfileFile) -> None:
    inside = next(cut for cut in range(found.profile.cuts[-1]) if cut and cut not in found.profile.cuts)
    assert elapsed_at(found.profile, [inside]) is None
    with pytest.raises(ConfigError, match="has blocks that end at"):
        found.elapsed_ms([inside])


def test_a_profile_of_another_model_is_refused(found: ProfileFile, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(found.to_json())
    with pytest.raises(ConfigError, match=r"a\.json is a profile of another model, .*: make one with splitbus profile"):
        ProfileFile.load(path, model="0" * 64)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"\xff\x00", b'{"kind": "splitbus-profile"}'])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.json (cannot be read|is no profile)"):
        ProfileFile.load(path, model="0" * 64)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"block_ms": [1.0, 2.0, 3.0]}, "cuts for 3 blocks"),
        ({"cuts": [9, 3]}, "out of order"),
        ({"block_ms": [0.0, 0.0]}, "not believed"),
        ({"block_ms": [1e8, 1e8], "whole_ms": 2e8}, "not believed"),
        ({"whole_ms": 30.0}, "must agree"),
        ({"local_ms": 0.0}, "in one piece"),
    ],
)
def test_absurd_figures_are_refused(change: dict[str, Any], reason: str) -> None:
    good = NodeProfile(
        node="n", boot="b", model="0" * 64, cuts=[3, 9], block_ms=[1.0, 2.0], spread_ms=[0.0, 0.0], whole_ms=3.0, runs=9
    )
    check_profile(good)
    with pytest.raises(DecodeError, match=reason):
        check_profile(good.model_copy(update=change))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 48, 500])
def test_anchors_are_few_apart_and_inside(count: int) -> None:
    cuts = list(range(3, 3 + 2 * count, 2))
    anchors = anchor_cuts(cuts)
    assert set(anchors) <= set(cuts[:-1])
    assert len(anchors) == min(ANCHORS, count - 1)
    assert anchors == sorted(anchors)


def test_heads_and_tails_are_measured_against_the_profile(tmp_path: Path) -> None:
    graph = load_graph(models.save(models.chain(), tmp_path))
    slices = LocalSlices(graph, threads=1)
    found = profile_here(graph, threads=1).profile
    times = list(measure_cuts(slices, found, Stopwatch(1), found.cuts[:-1], rounds=3))
    assert [entry.cut for entry in times] == found.cuts[:-1]
    assert all(entry.head + entry.tail == pytest.approx(1.0, abs=0.02) for entry in times)
    assert all(entry.measured_head > 0 and entry.measured_tail > 0 for entry in times)
