from __future__ import annotations

from pathlib import Path

import pytest
from tests import models

from splitbus_gateway.graph import cut_at, extract, load_graph
from splitbus_gateway.graph.memory import memory_bytes


def test_a_chain_worked_out_by_hand(tmp_path: Path) -> None:
    """x 3x16x16 to a 8x8x8, b 8x8x8, c 8x4x4, p 8, y 10; only b's and c's kernels are larger than 1 kB."""
    graph = load_graph(models.save(models.chain(), tmp_path))
    x, a, c, kernel = 3 * 16 * 16 * 4, 8 * 8 * 8 * 4, 8 * 4 * 4 * 4, 8 * 8 * 9 * 4
    assert [weight.nbytes for weight in graph.weights.values()] == [kernel, kernel]
    first = x + a
    assert first > a + a > a + c
    assert memory_bytes(graph, [0, 1, 2, 3]) == [0, first, first, first + kernel]
    assert memory_bytes(graph, [6, 9]) == [first + 2 * kernel] * 2


def test_a_tensor_lives_until_its_last_reader(tmp_path: Path) -> None:
    """Of the residual's tensors, three of 8x9x7 are alive while `br` is made: `ar` waits for the sum."""
    graph = load_graph(models.save(models.residual(), tmp_path))
    wide, kernel = 8 * 9 * 7 * 4, 8 * 8 * 9 * 4
    (whole,) = memory_bytes(graph, [graph.steps])
    assert whole == 3 * wide + 2 * kernel


@pytest.mark.parametrize("name", sorted(models.CORPUS))
def test_it_only_grows_and_has_the_weights_of_the_head(tmp_path: Path, name: str) -> None:
    graph = load_graph(models.save(models.CORPUS[name](), tmp_path))
    cuts = [index for index in range(graph.steps + 1) if cut_at(graph, index).legal]
    found = memory_bytes(graph, cuts)
    assert found == sorted(found)
    for cut, size in zip(cuts, found, strict=True):
        if cut:
            weights = sum(weight.nbytes for weight in extract(graph, 0, cut).weights)
            assert size >= weights + cut_at(graph, cut).nbytes
