from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests import models

from splitbus_gateway.graph import CutCheck, cut_tolerance, load_feed, random_feed, verify
from splitbus_gateway.graph.verify import distance
from splitbus_schemas.errors import ModelError

from .conftest import Load


def test_a_tail_with_other_weights_is_caught(load: Load) -> None:
    graph = load(models.chain())
    weight = graph.weights["c.w"]
    wrong = replace(weight, file=None, data=(weight.array() * np.float32(1.01)).tobytes())
    checks = verify(replace(graph, weights={**graph.weights, "c.w": wrong}), threads=1)
    assert not any(check.ok for check in checks)
    assert all(0.001 < check.max_rel < 0.1 for check in checks)


def test_given_inputs_count_beside_the_random_one(load: Load) -> None:
    """An input of large numbers shows what quantising costs; the random one does not."""
    graph = load(models.chain())
    feed = {"x": np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32) * 1e3}
    with_feed, without = (verify(graph, cuts=[2], feeds=feeds, codec="q8", threads=1)[0] for feeds in ([feed], []))
    assert with_feed.max_abs > 100 * without.max_abs


def test_progress_is_told_cut_by_cut(load: Load) -> None:
    seen: list[CutCheck] = []
    assert verify(load(models.chain()), cuts=[1, 4], threads=1, progress=seen.append) == seen
    assert [check.index for check in seen] == [1, 4]


def test_tolerance_follows_the_arithmetic(load: Load) -> None:
    assert cut_tolerance(load(models.chain()), 2) == 1e-4
    assert cut_tolerance(load(models.CORPUS["float16"]()), 2) == 1e-2
    quantised = load(models.qdq())
    assert [cut_tolerance(quantised, index) for index in (1, 2, 3)] == [1e-4, 5e-2, 1e-4]


@pytest.mark.parametrize(
    ("found", "expected", "far"),
    [
        ([1.0, 2.0], [1.0, 2.0], (0.0, 0.0)),
        ([1.0, 2.5], [1.0, 2.0], (0.5, 0.25)),
        ([0.5], [0.0], (0.5, 0.5)),
        ([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0], (0.0, 0.0)),
        ([np.nan], [1.0], (np.inf, np.inf)),
        ([1.0], [np.nan], (np.inf, np.inf)),
        ([1.0], [1.0, 1.0], (np.inf, np.inf)),
        ([], [], (0.0, 0.0)),
    ],
)
def test_distance(found: list[float], expected: list[float], far: tuple[float, float]) -> None:
    assert distance(np.array(found), np.array(expected)) == far


def test_distance_minds_the_type() -> None:
    assert distance(np.array([1], np.int32), np.array([1], np.int64)) == (np.inf, np.inf)
    assert distance(np.array([True]), np.array([False])) == (1.0, 1.0)


def test_feeds_are_kept_and_read(load: Load, tmp_path: Path) -> None:
    feed = random_feed(load(models.inputs_outputs()).inputs, seed=3)
    np.savez(tmp_path / "feed.npz", x=feed["x"], late=feed["late"])
    found = load_feed(tmp_path / "feed.npz")
    assert found.keys() == feed.keys() == {"x", "late"}
    assert all(np.array_equal(found[name], feed[name]) for name in feed)


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00"])
def test_a_bad_feed_gets_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "feed.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"feed\.npz is not an \.npz file"):
        load_feed(path)


def test_a_feed_must_be_arrays_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ModelError, match=r"one\.npy is not an \.npz file"):
        load_feed(tmp_path / "one.npy")
