from __future__ import annotations

import pytest
from onnx import ModelProto
from tests import models

from splitbus_gateway.graph.work import Work, step_work

from .conftest import Load


def work_of(load: Load, proto: ModelProto) -> dict[str, Work]:
    graph = load(proto)
    counted = step_work(graph.topology, graph.proto.graph, graph.types)
    return {step.output[0]: work for step, work in zip(graph.topology.steps, counted, strict=True)}


def test_a_convolution_by_hand(load: Load) -> None:
    found = work_of(load, models.chain())
    # 8x8 places, 8 channels, each of 3x3x3 products; 3x16x16 values in, 8x8x8 out, 216 weights and 8 biases
    assert found["a"] == Work(macs=64 * 8 * 27, moved=768 + 512 + 216 + 8)
    assert found["y"].macs == 8 * 10
    assert found["ar"] == found["f"] == Work(0, 0)


def test_weights_behind_a_view_count_too(load: Load) -> None:
    assert work_of(load, models.qdq())["c"].macs == 12 * 12 * 8 * 3 * 9


@pytest.mark.parametrize("name", models.CORPUS)
def test_only_light_steps_are_free(load: Load, name: str) -> None:
    found = work_of(load, models.CORPUS[name]())
    assert all((work.macs > 0) == (work.moved > 0) for work in found.values())
    assert any(work.macs > 0 for work in found.values())


def test_work_grows_with_the_input(load: Load) -> None:
    small, large = work_of(load, models.transformer()), work_of(load, models.no_useful_cut())
    assert small["q0"].macs == 32 * 32
    assert large["y"].macs == 64 * 16 * 16 * 9
