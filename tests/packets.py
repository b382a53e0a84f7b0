"""The corpus: one of everything on the wire. Round trip, truncation, golden vectors and benchmark share it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from splitbus_runtime.hpke import Secret
from splitbus_schemas import messages as m
from splitbus_schemas.ids import sha256
from splitbus_schemas.packet import Array, pack_tensor
from splitbus_schemas.packet_types import (
    BlobPiece,
    Echo,
    FrameId,
    Hop,
    Job,
    Packet,
    Probe,
    Refusal,
    Result,
    Seal,
    Sealed,
    Spent,
    Tensor,
)
from splitbus_schemas.seal_keys import key_id, write_public
from splitbus_schemas.sealed import seal_packet, session_info
from splitbus_schemas.tensor_file import Source, TensorFile

MODEL: Final = sha256(b"model")
HEAD, MIDDLE, TAIL = (sha256(name) for name in (b"head", b"middle", b"tail"))
GRAPH: Final = sha256(b"graph")
WEIGHT: Final = sha256(b"weight")
DTYPES: Final = (
    "float32", "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
"""Written out once more: the registry must not lose one unseen."""

FRAME: Final = FrameId("cam1", "k3x9", 4711)
REPLY_TO: Final = "splitbus/v1/home/reply/cam1/k3x9"
SPENT: Final = (
    Spent("cam1", run_us=1800, encode_us=90),
    Spent("edge1", 400, 60, 2100, 80, train_bytes=15744, train_us=6300),
)


def ramp(dtype: str, shape: tuple[int, ...]) -> Array:
    """0, 1, 2, ... in that shape; false, true, false, ... as bool."""
    numbers = np.arange(int(np.prod(shape)))
    return np.asarray(numbers % 2 if dtype == "bool" else numbers).astype(dtype).reshape(shape)


def activation(size: int, coding: str) -> tuple[Tensor, ...]:
    """What a quantised cut puts on the wire: `size` small numbers, as sparse as after a ReLU, and their scale."""
    noise = np.random.default_rng(7).normal(size=size)
    channels = max(size // 1024, 1)
    return (
        pack_tensor("x::q", np.clip(noise * 4, 0, 15).astype(np.uint8), coding),
        pack_tensor("x::lo", np.zeros((1, channels), np.float32), "raw"),
        pack_tensor("x::step", np.full((1, channels), 0.25, np.float32), "raw"),
    )


def tiles(height: int, width: int) -> Array:
    """A picture of grey tiles of 8x8, which every JPEG and WebP decoder reads alike, to the last bit."""
    rows, columns = np.mgrid[0:height, 0:width] // 8
    return np.repeat(((40 + 30 * rows + 20 * columns) % 256)[..., None], 3, axis=-1).astype(np.uint8)


def job(tensors: tuple[Tensor, ...], *, spent: tuple[Spent, ...] = SPENT[:1], route: tuple[Hop, ...] = ()) -> Job:
    """A frame on its way to two workers."""
    return Job(
        frame=FRAME,
        model=MODEL,
        plan="p12",
        epoch=12,
        attempt=0,
        budget_us=187_500,
        reply_to=REPLY_TO,
        route=route or (Hop("edge1", MIDDLE, "zstd"), Hop("cloud1", TAIL)),
        tensors=tensors,
        spent=spent,
    )


EVERY_DTYPE: Final = tuple(pack_tensor(f"as {dtype}", ramp(dtype, (2, 3)), "raw") for dtype in DTYPES)
CORNERS: Final = (
    pack_tensor("a scalar", np.array(1.5, np.float32), "raw"),
    pack_tensor("empty", np.zeros((2, 0, 3), np.float32), "raw"),
    pack_tensor("empty, coded", np.zeros((0,), np.int64), "zstd"),
    pack_tensor("eight dimensions", ramp("uint8", (1, 2, 1, 2, 1, 2, 1, 1)), "raw"),
    pack_tensor("not numbers", np.array([np.nan, np.inf, -np.inf, -0.0], np.float32), "raw"),
    pack_tensor("Schlüssel/层", ramp("int16", (3,)), "raw"),
    pack_tensor("", ramp("bool", (3,)), "raw"),
)
SEAL_SECRETS: Final = {"cam1": Secret.of(bytes([1]) * 32), "edge1": Secret.of(bytes([2]) * 32)}
SEAL_SHARE: Final = Secret.of(bytes([3]) * 32)
"""A sender that makes a new one for each session gives other bytes each time; golden vectors must not."""


def sealed(packet: Job | Result, sender: str, receiver: str, era: str, number: int = 5) -> Sealed:
    """The packet, sealed with keys that everybody may read here."""
    info = session_info("home", sender, receiver, era)
    share, context = SEAL_SECRETS[sender].send_to(SEAL_SECRETS[receiver].public, info, SEAL_SHARE)
    seal = Seal(sender, key_id(SEAL_SECRETS[sender].public), era, share, number)
    return seal_packet(packet, seal, partial(context.seal, number))


SEALED_JOB: Final = replace(
    job((pack_tensor("x", ramp("float32", (1, 2, 2, 3)), "raw"),)), answer=key_id(SEAL_SECRETS["cam1"].public)
)
SEALED_RESULT: Final = Result(
    FRAME, "p12", 12, 1, (pack_tensor("logits", ramp("float32", (1, 4)), "raw", final=True),), SPENT
)
PACKETS: Final[dict[str, Packet]] = {
    "job": job((pack_tensor("x", ramp("float32", (1, 2, 2, 3)), "raw"),)),
    "job-zstd": job(activation(600, "zstd")),
    "job-dtypes": job(EVERY_DTYPE),
    "job-pictures": job(
        (
            pack_tensor("jpeg", tiles(16, 24)[None], "jpeg85"),
            pack_tensor("webp", tiles(16, 16), "webp75"),
            pack_tensor("lossless", tiles(24, 16), "webpll"),
        ),
        route=(Hop("edge1", MIDDLE, "jpeg50"),),
    ),
    "job-corners": job(CORNERS, spent=(), route=tuple(Hop(f"n{i}", MIDDLE, "zstd") for i in range(8))),
    "result": Result(FRAME, "p12", 12, 1, (pack_tensor("logits", ramp("float32", (1, 4)), "raw", final=True),), SPENT),
    "result-empty": Result(FrameId("c", "0", 0), "p", 0, 0, ()),
    "sealed-job": sealed(SEALED_JOB, "cam1", "edge1", "0123456789abcdef"),
    "sealed-result": sealed(SEALED_RESULT, "edge1", "cam1", FRAME.boot),
    "refusal": Refusal(FRAME, "p12", 12, 0, "edge1", "slice", f"slice {MIDDLE[:12]} is not loaded here", SPENT[:1]),
    "probe": Probe(7, "cam1", REPLY_TO, 16384, pad=b"splitbus"),
    "probe-train": Probe(8, "cam1", REPLY_TO, 0, pad=bytes(range(256)) * 36),
    "echo": Echo(7, "edge1", 120, 15744, 6300, pad=bytes(16)),
    "blob": BlobPiece(WEIGHT, 65536, 131072, b"weights"),
    "blob-missing": BlobPiece(WEIGHT, 0, 0, detail="no blob of that hash is stored here"),
}

PUBLIC_KEYS: Final = tuple(write_public(bytes([number]) * 32) for number in (1, 2, 3))

PARTS: Final[dict[str, tuple[str, int, bool]]] = {"chunks": ("job", 200, False), "train": ("probe-train", 4096, True)}
"""Packet, largest payload, whether as a train."""

PART_NUMBER: Final = 0x1122334455667788


def stage(node: str, tier: m.Tier, slice_id: str, coding: str = "raw") -> m.PlanStage:
    return m.PlanStage(node=node, tier=tier, slice=slice_id, coding=coding)


STEPS: Final = [
    m.Step(what="run", where="cam1", ms=18.4),
    m.Step(what="encode", where="cam1", ms=0.9),
    m.Step(what="link", where="cam1>edge1", ms=7.2, bytes=16100),
    m.Step(what="run", where="edge1", ms=2.6),
    m.Step(what="link", where="edge1>cam1", ms=2.1, bytes=4300),
]
CUTS: Final = [m.PlanCut(index=17, codec="q8", tensors=["/blocks.5/Add_output_0"], bytes=16100)]
LINK: Final = m.LinkReport(
    node="cam1", peer="edge1", rtt_ms=3.1, up_mbit=19.4, down_mbit=22.0, samples=40, age_s=0.4, confidence=0.93
)
CHOSEN: Final = m.Candidate(
    label="cut 17 q8 > edge1", cuts=CUTS, nodes=["cam1", "edge1"], predicted_ms=31.2, steps=STEPS
)
LOCAL: Final = m.Candidate(label="all on cam1", cuts=[], nodes=["cam1"], predicted_ms=46.0)

MESSAGES: Final[dict[str, m.Message]] = {
    "status": m.NodeStatus(
        state="ready", node="edge1", boot="b7f2", tier="edge", software="splitbus 0.1.0", since="2026-02-03T09:30:00Z"
    ),
    "status-sealed": m.NodeStatus(
        state="ready", node="edge1", boot="b7f2", tier="edge",
        seal=m.SealState(key="5ef0b1c2d3a49687", era="0123456789abcdef"),
    ),
    "status-lost": m.NodeStatus(state="lost", node="edge1", boot="b7f2", tier="edge"),
    "caps": m.NodeCaps(
        node="edge1", boot="b7f2", tier="edge", cores=4, memory_mb=3900, concurrency=2,
        codecs=["raw", "zstd", "f16", "q8", "q4"], max_packet_bytes=1048576,
    ),
    "health": m.NodeHealth(
        node="edge1",
        boot="b7f2",
        tier="edge",
        software="splitbus 0.1.0",
        state="stuck",
        since="2026-11-21T03:00:00.000+00:00",
        reasons=["frame 17 of cam1 has been under way for 42 s, 30 s are allowed"],
        uptime_s=3600.5,
        ages_s={"echo": 0.4, "oldest_frame": 41.2, "run-0": 42.0},
        counters={"jobs": 9120, "errors": 1},
    ),
    "stats": m.NodeStats(
        node="edge1", boot="b7f2", uptime_s=3600.5, busy=0.31, queued=1, concurrency=2, sessions=3, sessions_mb=24.5,
        broker_rtt_ms=0.4, counters={"jobs": 9120, "refused_busy": 2},
    ),
    "alert": m.Alert(
        node="edge1", what="packet_damaged", reason="packet does not match its checksum: it was damaged on the way",
        topic="splitbus/v1/home/job/edge1/cam1",
    ),
    "slices": m.SliceState(
        node="edge1", boot="b7f2", ready=[MIDDLE], loading=[TAIL], failed={HEAD: "blob is missing at the gateway"}
    ),
    "profile": m.NodeProfile(
        node="edge1", boot="b7f2", model=MODEL, cuts=[9, 17, 48], block_ms=[1.9, 1.4, 1.3], spread_ms=[0.1, 0.0, 0.1],
        whole_ms=4.6, runs=30,
    ),
    "link": LINK,
    "plan-state": m.PlanState(node="cam1", boot="k3x9", plan="p12", epoch=12, state="active"),
    "stream": m.StreamStats(
        node="cam1", boot="k3x9", model=MODEL, plan="p12", epoch=12, period_s=1.0, frames=24,
        routes={"cam1>edge1": 23, "cam1": 1}, p50_ms=31.9, p95_ms=44.2, steps=STEPS, cut_bytes=[16080], in_flight=1,
        counters={"answered": 4711, "dropped": 3, "late": 0},
    ),
    "plan": m.Plan(
        plan="p12", epoch=12, device="cam1", model=MODEL, name="person", head=stage("cam1", "device", HEAD, "zstd"),
        routes=[[stage("edge1", "edge", TAIL)], [stage("cloud1", "cloud", TAIL)]], cuts=CUTS, predicted_ms=31.2,
        steps=STEPS, reason="31.2 ms beats all on cam1 by 14.8 ms",
    ),
    "plan-local": m.Plan(
        plan="p13", epoch=13, device="cam1", model=MODEL, name="person", predicted_ms=46.0, reason="edge1 is lost"
    ),
    "plan-again": m.Plan(
        plan="p14", epoch=14, device="cam1", model=MODEL, name="person",
        head=stage("cam1", "device", HEAD, "t9").model_copy(
            update={"slack": 0.5, "again": m.Again(coding="t5", below=0.71)}
        ),
        routes=[[stage("edge1", "edge", TAIL)]],
        cuts=[m.PlanCut(index=17, codec="t9+t5", tensors=["Relu_17"], bytes=620)],
        predicted_ms=24.0, steps=STEPS, reason="24.0 ms beats all on cam1 by 22.0 ms",
    ),
    "decision": m.Decision(
        device="cam1", model=MODEL, name="person", plan="p12", epoch=12, changed=True, at="2026-02-03T09:31:07Z",
        why="the link cam1>edge1 rose to 19.4 Mbit/s", considered=245, chosen=CHOSEN, runner_up=LOCAL, before=LOCAL,
        links=[LINK], blocked=["cloud1: no profile yet"],
    ),
    "work": m.NodeWork(
        slices=[MIDDLE, TAIL],
        profiles=[m.ProfileRequest(model=MODEL, cuts=[17, 48], blocks=[HEAD, TAIL], whole=MIDDLE)],
    ),
    "peers": m.Peers(peers=[m.Peer(node="edge1", tier="edge"), m.Peer(node="cloud1", tier="cloud")]),
    "model": m.ModelCard(
        name="person", model=MODEL, files=[m.FileRef(name="person.onnx", sha256=MODEL, bytes=18_530_000)],
        inputs=[m.TensorSpec(name="image", dtype="float32", shape=[None, 3, 224, 224])],
        outputs=[m.TensorSpec(name="logits", dtype="float32", shape=[None, 1000])], nodes=94, cuts=[0, 9, 17, 48],
    ),
    "keys": m.KeyList(
        epoch=1_770_000_000,
        nodes=[
            m.NodeKeys(node="cam1", role="device", keys=[PUBLIC_KEYS[0]]),
            m.NodeKeys(node="edge1", role="worker", keys=[PUBLIC_KEYS[1], PUBLIC_KEYS[2]]),
        ],
    ),
    "lease": m.Lease(term=3, node="gateway", boot="c41d", serial=57, state="held", seconds=3.0),
    "pin": m.Pin(cuts=[m.PlanCut(index=9, codec="zstd")], nodes=["edge1"], by="anna"),
    "blob-get": m.BlobRequest(
        sha256=WEIGHT, offset=65536, length=65536, reply_to="splitbus/v1/home/blob/data/edge1/b7f2"
    ),
    "slice-manifest": m.SliceManifest(
        model=MODEL, first=17, last=48, codec_in="q8", codec_out="raw", graph=GRAPH, graph_bytes=41_000,
        inputs=[
            m.TensorSpec(name="x::q", dtype="uint8", shape=[1, 40, 28, 28]),
            m.TensorSpec(name="x::lo", dtype="float32", shape=[1, 40, 1, 1]),
            m.TensorSpec(name="x::step", dtype="float32", shape=[1, 40, 1, 1]),
        ],
        outputs=[m.TensorSpec(name="logits", dtype="float32", shape=[1, 1000], final=True)],
        weights=[
            m.WeightRef(
                name="fc.weight", dtype="float32", shape=[1000, 1280], sha256=WEIGHT, bytes=5_120_000, file=MODEL,
                offset=13_400_000,
            )
        ],
    ),
}  # fmt: skip
"""By the name of their topic, and variants behind a dash."""

FILES = {
    "raw": TensorFile(
        "raw", (Source("x", "int16", (2, 3)),), (pack_tensor("x", np.arange(6, dtype="int16").reshape(2, 3), "raw"),)
    ),
    "q8": TensorFile(
        "q8",
        (Source("x", "float32", (1, 4, 8, 8)),),
        (
            pack_tensor("x::q8", (np.arange(256) % 7).astype("uint8").reshape(1, 4, 8, 8), "zstd"),
            pack_tensor("x::q8.lo", np.full((1, 4, 1, 1), -1, "float32"), "zstd"),
            pack_tensor("x::q8.step", np.full((1, 4, 1, 1), 0.25, "float32"), "zstd"),
        ),
    ),
}
"""Coded tensors as `splitbus codec` writes them, by codec."""
