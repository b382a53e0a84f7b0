"""A camera whose activations travel as rounded coefficients: calibrated when the model is added, pinned, answered."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from tests.brokers import BrokerFactory
from tests.e2e.camera import ask
from tests.e2e.picture_model import Reference, picture
from tests.e2e.site import CAMERA, EDGE, MODEL, Site, serving, wait_for

from splitbus_device import Answer, InferenceSession
from splitbus_schemas import messages as m
from splitbus_schemas import topics
from splitbus_schemas.codecs import SHIFTS
from splitbus_schemas.entropy_tables import read_tables
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.ids import sha256

ALLOWED = {"t1": 0.02, "t3": 0.1, "t8": 0.6}
"""Largest difference, as a share of the largest output."""


class Calibrated(Site):
    """A site whose model is calibrated on one half of its pictures, and measured on the other."""

    def register(self) -> None:
        pictures = self.folder / "pictures.npz"
        np.savez(pictures, x=np.concatenate([picture(7 * index) for index in range(40)])[:, None])
        done = self.splitbus(
            "model", "add", MODEL, self.model, "--calibrate", pictures, "--json", "--config", self.config
        )
        assert done.returncode == 0, done.stderr
        self.record = json.loads(done.stdout)
        assert 8 <= self.record["sample_count"] <= 20

    def sizes(self, cut: int) -> dict[str, int]:
        return {size["codec"]: size["p50_bytes"] for size in self.record["sizes"] if size["cut"] == cut}

    def pin(self, cut: int, codec: str) -> None:
        done = self.splitbus(
            "plan", "pin", CAMERA, MODEL, f"--cut={cut}", f"--codec={codec}", f"--node={EDGE}", *self.options
        )
        assert done.returncode == 0, done.stderr

    def head(self) -> str | None:
        plan = self.watch.last(m.Plan, topics.PLAN.at(self.name, node=CAMERA, model=self.key))
        return plan.head.slice if plan and plan.head else None


@pytest.fixture(scope="module")
def site(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calibrated]:
    with broker_factory() as broker:
        made = Calibrated(broker, tmp_path_factory.mktemp("transform"), f"s{secrets.token_hex(4)}")
        with serving(made):
            yield made


def remote(session: InferenceSession, index: int) -> Answer | None:
    answer = ask(session, picture(index))
    return None if answer.is_local else answer


def travels(session: InferenceSession, codec: str) -> bool:
    return ask(session, picture(0)).codecs == (codec,)


def best_cut(site: Calibrated) -> int:
    """The cut behind the input at which the middle strength sends least."""
    cuts: set[int] = {size["cut"] for size in site.record["sizes"] if size["codec"] in SHIFTS and size["cut"]}
    return min(cuts, key=lambda cut: site.sizes(cut)["t8"])


def test_the_codecs_are_measured_where_they_were_calibrated(site: Calibrated) -> None:
    cut = best_cut(site)
    sizes = site.sizes(cut)
    order = [sizes[name] for name in SHIFTS]
    assert order == sorted(order, reverse=True)
    assert sizes["t8"] < sizes["q4"] / 2
    assert 0 in {size["cut"] for size in site.record["sizes"] if size["codec"] == "t8"}  # a float picture fits as well


def test_activations_cross_at_any_strength_and_one_slice_serves_all(site: Calibrated) -> None:
    reference, cut = Reference(site.model), best_cut(site)
    heads, sent = set(), {}
    with site.open() as session:
        for codec, allowed in ALLOWED.items():
            site.pin(cut, codec)
            wait_for(f"frames travel as {codec}", partial(travels, session, codec))
            answers = [(index, ask(session, picture(index))) for index in range(8)]
            came = [(index, answer) for index, answer in answers if not answer.is_local]
            assert len(came) >= 4
            differences = [reference.difference(index, answer.outputs) for index, answer in came]
            assert 0 < max(differences) <= allowed, codec
            assert {answer.route for _, answer in came} == {(CAMERA, EDGE)}
            sent[codec] = float(np.mean([answer.cut_bytes[0] for _, answer in came]))
            assert sent[codec] < site.sizes(cut)[codec] * 1.5
            heads.add(site.head())
        site.splitbus("plan", "unpin", CAMERA, MODEL, *site.options)
    assert len(heads) == 1
    assert None not in heads
    assert list(sent.values()) == sorted(sent.values(), reverse=True)


def test_a_float_picture_itself_crosses_as_coefficients(site: Calibrated) -> None:
    reference = Reference(site.model)
    with site.open() as session:
        site.pin(0, "t3")
        wait_for("frames travel as t3", partial(travels, session, "t3"))
        answer = wait_for("an answer from the edge", partial(remote, session, 3))
        assert reference.difference(3, answer.outputs) < ALLOWED["t3"]
        assert answer.cut_bytes[0] < picture(3).nbytes / 10
        site.splitbus("plan", "unpin", CAMERA, MODEL, *site.options)


def test_slices_name_their_tables_by_hash(site: Calibrated) -> None:
    """What a node holds of a transform codec is the slice's manifest and a blob that it names."""
    blobs = [path.read_bytes() for path in (site.folder / CAMERA).rglob("*") if path.is_file()]
    manifests = []
    for blob in blobs:
        with contextlib.suppress(DecodeError):
            manifests.append(m.SliceManifest.from_json(blob))
    tables = [table for manifest in manifests for table in manifest.tables]
    assert tables
    held = {sha256(blob): blob for blob in blobs}
    for table in tables:
        assert read_tables(held[table.sha256]).shape
        assert len(held[table.sha256]) == table.bytes < 100_000
