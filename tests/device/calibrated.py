"""A site whose model is calibrated: what tests of codecs between a camera and its workers share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.brokers import Broker
from tests.device.rig import Site, plain
from tests.e2e.picture_model import SIDE, picture, save_classifier

from splitbus_device import Answer, InferenceSession
from splitbus_gateway.graph import cut_at
from splitbus_schemas import messages as m
from splitbus_worker.worker import Worker

CODEC = "t6"
ALLOWED = 0.3
"""Largest difference from the un-split model that the codec may make, as a share of the largest output."""


@dataclass
class Told:
    """A site whose model is calibrated, and its plans at one cut."""

    site: Site
    model: Path
    card: m.ModelCard
    cut: int

    def plan(
        self, *workers: str, slack: float | None = None, again: m.Again | None = None, codec: str = CODEC
    ) -> m.Plan:
        plan = self.site.plan(self.card, *([(worker, self.cut)] for worker in workers), codec=codec)
        assert plan.head is not None
        return plan.model_copy(update={"head": plan.head.model_copy(update={"slack": slack, "again": again})})

    @contextlib.contextmanager
    def running(
        self,
        *workers: str,
        slack: float | None = None,
        again: m.Again | None = None,
        codec: str = CODEC,
        **options: Any,
    ) -> Iterator[tuple[InferenceSession, dict[str, Worker]]]:
        plan = self.plan(*workers, slack=slack, again=again, codec=codec)
        with contextlib.ExitStack() as stack:
            made = {
                node: stack.enter_context(self.site.worker(node, *self.site.stage_slices(plan, node)))
                for node in workers
            }
            session = stack.enter_context(self.site.session(self.model, **options))
            self.site.follow(session, plan)
            yield session, made

    def answers(self, frames: Sequence[NDArray[np.float32]], codec: str = CODEC) -> list[Answer]:
        """To frames that stand alone, and are sent once."""
        with self.running("edge1", codec=codec) as (session, _):
            return [ask(session, frame) for frame in frames]

    def alone(self, frames: Sequence[NDArray[np.float32]]) -> list[bytes]:
        """The same, as bytes."""
        return [given(answer) for answer in self.answers(frames)]

    def right(self, frame: NDArray[np.float32], answer: Answer) -> None:
        """Whether it is what the un-split model says, as far as the codec goes."""
        (expected,) = plain(self.model).run(None, {"x": frame})
        assert np.abs(answer.outputs[0] - expected).max() <= ALLOWED * np.abs(expected).max()


@contextlib.contextmanager
def calibrated_site(broker: Broker, folder: Path) -> Iterator[Told]:
    """Calibrated once; what one test's nodes say is retained for the next, as at any site."""
    site = Site(broker, folder)
    model = save_classifier(site.folder / "model")
    card = site.register(model, calibrate=[{"x": picture(7 * index)} for index in range(24)])
    names = site.registry.transforms(card.model)
    graph = site.registry.graph(card.model)
    cut = max(i for i in range(1, graph.steps) if {t.name for t in cut_at(graph, i).tensors} <= names.keys())
    yield Told(site, model, card, cut)
    site.close()


def scene(count: int, noise: float = 0.004, seed: int = 1) -> list[NDArray[np.float32]]:
    """A still picture under noise, in which a small thing moves."""
    rng, frames = np.random.default_rng(seed), []
    for index in range(count):
        frame = picture(0) + rng.normal(0, noise, (1, 3, SIDE, SIDE)).astype(np.float32)
        frame[:, :, 40:52, 4 * index % 90 : 4 * index % 90 + 12] += 0.5
        frames.append(frame)
    return frames


def ask(session: InferenceSession, frame: NDArray[np.float32]) -> Answer:
    session.run(None, {"x": frame})
    answer = session.last_answer
    assert answer is not None
    return answer


def given(answer: Answer) -> bytes:
    assert not answer.is_local, answer.reason
    return bytes(answer.outputs[0].tobytes())
