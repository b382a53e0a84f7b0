"""Cameras of a whole site tell frames as differences: through a kill -9 of the worker, and two cameras at once."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.brokers import BrokerFactory
from tests.device.rig import plain
from tests.e2e.camera import open_slow
from tests.e2e.picture_model import SIDE, picture
from tests.e2e.site import CAMERA, EDGE, MODEL, Site, serving, wait_for

from splitbus_device import Answer, InferenceSession
from splitbus_schemas import messages as m
from splitbus_schemas import topics

CODEC = "t6"
ALLOWED = 0.3
"""Largest difference from the un-split model, as a share of its largest output."""

OTHER, SECOND = "camera2", "edge2"


class Calibrated(Site):
    """A site whose model is calibrated, with both cameras pinned to where its coefficients are fewest."""

    def register(self) -> None:
        pictures = self.folder / "pictures.npz"
        np.savez(pictures, x=np.concatenate([picture(7 * index) for index in range(24)])[:, None])
        done = self.splitbus(
            "model", "add", MODEL, self.model, "--calibrate", pictures, "--json", "--config", self.config
        )
        assert done.returncode == 0, done.stderr
        sizes = [size for size in json.loads(done.stdout)["sizes"] if size["codec"] == CODEC and size["cut"]]
        self.cut = min(sizes, key=lambda size: size["p50_bytes"])["cut"]
        self.reference = plain(self.model)

    def pin(self, camera: str, node: str) -> None:
        done = self.splitbus(
            "plan", "pin", camera, MODEL, f"--cut={self.cut}", f"--codec={CODEC}", f"--node={node}", *self.options
        )
        assert done.returncode == 0, done.stderr

    def plan_of(self, camera: str) -> m.Plan | None:
        return self.watch.last(m.Plan, topics.PLAN.at(self.name, node=camera, model=self.key))

    def session(self, camera: str) -> InferenceSession:
        url = f"mqtt://{self.relay.host}:{self.relay.port}"
        return open_slow(self.model, broker=url, site=self.name, device=camera, store=self.folder / camera)

    def is_right(self, frame: NDArray[np.float32], answer: Answer) -> None:
        (expected,) = self.reference.run(None, {"x": frame})
        allowed = 1e-4 if answer.is_local else ALLOWED
        assert np.abs(answer.outputs[0] - expected).max() <= allowed * np.abs(expected).max()


@pytest.fixture(scope="module")
def site(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calibrated]:
    with broker_factory() as broker:
        made = Calibrated(broker, tmp_path_factory.mktemp("temporal"), f"s{secrets.token_hex(4)}")
        with serving(made, ((EDGE, "edge"), (SECOND, "edge"))):
            yield made


def scene(index: int, place: int = 0) -> NDArray[np.float32]:
    """A still picture under noise, in which a small thing moves."""
    frame = picture(place) + np.random.default_rng(index).normal(0, 0.004, (1, 3, SIDE, SIDE)).astype(np.float32)
    frame[:, :, 40:52, 4 * index % 90 : 4 * index % 90 + 12] += 0.5
    return np.ascontiguousarray(frame, np.float32)


def ask(session: InferenceSession, frame: NDArray[np.float32]) -> Answer:
    session.run(None, {"x": frame})
    answer = session.last_answer
    assert answer is not None
    return answer


def goes_over(session: InferenceSession, node: str) -> bool:
    answer = ask(session, scene(0))
    return answer.route[1:] == (node,) and answer.codecs == (CODEC,)


def test_frames_shrink_and_outlive_a_worker_that_is_killed(site: Calibrated) -> None:
    with site.session(CAMERA) as session:
        site.pin(CAMERA, EDGE)
        wait_for("frames go over the edge", partial(goes_over, session, EDGE))
        plan = site.plan_of(CAMERA)
        assert plan is not None
        assert plan.head is not None
        assert plan.head.slack == 0.5
        sizes: list[int] = []
        for index in range(40):
            if index == 15:
                site.kill(EDGE)
                site.start_worker(EDGE, "edge")
            answer = ask(session, scene(index))
            site.is_right(scene(index), answer)
            sizes += answer.cut_bytes
        wait_for("frames go over the edge again", partial(goes_over, session, EDGE))
        answers = [ask(session, scene(index)) for index in range(10)]
        for index, answer in enumerate(answers):
            site.is_right(scene(index), answer)
        sizes += [size for answer in answers for size in answer.cut_bytes]
    assert len(sizes) >= 20
    assert np.median(sizes) < 0.6 * max(sizes)
    assert not site.watch.alerts(EDGE, "refused_input")


def test_two_cameras_that_change_workers_get_their_own_answers(site: Calibrated) -> None:
    with site.session(CAMERA) as one, site.session(OTHER) as two:
        for turn in range(2):
            nodes = (EDGE, SECOND) if turn else (SECOND, EDGE)
            for camera, node, session in zip((CAMERA, OTHER), nodes, (one, two), strict=True):
                site.pin(camera, node)
                wait_for(f"{camera} goes over {node}", partial(goes_over, session, node))
            sizes: list[int] = []
            for index in range(10):
                for place, session in ((0, one), (60, two)):
                    answer = ask(session, scene(index, place))
                    site.is_right(scene(index, place), answer)
                    sizes += answer.cut_bytes
            assert np.median(sizes) < max(sizes)
    assert not site.watch.alerts(EDGE, "refused_input")
    assert not site.watch.alerts(SECOND, "refused_input")
