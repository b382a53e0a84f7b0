"""A camera's frames told as differences: bytes, agreement and times beside frames that stand alone, and pictures.

    .venv/bin/python benchmarks/temporal.py --models DIR --images DIR --video FILE [--model NAME] [--cuts N,N]

Scenes: every frame of the video; a photograph that is panned by a pixel a frame; and one that stands still, both with
noise of two shades. The transform is calibrated on the photographs. Ways to send, each with a curve over its settings:
every frame alone (`alone`); differences from the frame before, rounded afresh (`exact`), or told once a coefficient
lies off by more (`calm`, and `still` with 0.75); JPEG and WebP of the frame; H.264 of the frames as a stream (x264,
zerolatency), as a camera without splitbus would send. Bytes are payload, mean per frame, key frames every 30 s
included. Agreement is the share of frames with the un-split model's own best class (for outputs that are no scores: of
those within 5 % relative error), on every third frame. `empty` are stretches of the video of a second and more in which
nothing but noise differs from the median picture of 4 s. A ratio is taken over `alone`: at equal strength; and at equal
agreement, where that is below 1: the way's curve, interpolated, where `alone` has a setting.
"""

from __future__ import annotations

import io
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from _codings import recode
from _report import Figure, parser, report, with_pictures
from _subjects import Point as Rate
from _subjects import prepare
from codec import bytes_at
from PIL import Image, ImageOps

from splitbus_gateway.graph import Cut, ModelGraph, cut_at, extract, load_graph, open_slice, useful_cuts
from splitbus_gateway.transform import node_coder, wire_name
from splitbus_gateway.transform.calibrate import Calibrated
from splitbus_gateway.transform.model import calibrate_cuts, promising
from splitbus_gateway.walk import run_named
from splitbus_runtime.engine import Array, Session
from splitbus_runtime.sameness import same_answer
from splitbus_schemas.codecs import SHIFTS
from splitbus_schemas.differences import SLACK, STILL_SLACK, decode, difference, key_frame, settle
from splitbus_schemas.entropy import Coder
from splitbus_schemas.references import Reference

STRENGTHS: Final = ("t2", "t4", "t5", "t6", "t7", "t8", "t9")
SLACKS: Final = {"alone": None, "exact": 0.5, "calm": SLACK, "still": STILL_SLACK}
QUALITIES: Final = {"jpeg": (50, 75, 90), "webp": (50, 75, 90)}
RATE_FACTORS: Final = (18, 23, 28)
FPS: Final = 10
KEY_FRAMES: Final = 30 * FPS
CHECKED: Final = 3
"""Each third frame's answer is looked at."""

EMPTY_SHARE: Final = 0.002
EMPTY_SHADES: Final = 15
AROUND: Final = 2 * FPS
"""A frame is empty when fewer pixels differ by more from the median picture of the seconds around it."""

MADE_FRAMES: Final = 200
NOISE: Final = 2.0


@dataclass(frozen=True)
class Scene:
    """Frames (uint8 RGB, of the model's size), and which of them are empty."""

    name: str
    frames: list[Array]
    empty: Array


@dataclass(frozen=True)
class Sent:
    """A way at one setting, frame by frame: bytes, seconds to encode and to decode, and whether answers are kept."""

    sizes: Array
    encode_s: float
    decode_s: float
    kept: float


class Held(dict[bytes, Reference]):
    """All that was ever decoded."""

    def find(self, name: bytes) -> Reference | None:
        """As a worker."""
        return self.get(name)

    def keep(self, reference: Reference) -> None:
        """As a worker."""
        self[reference.name] = reference


def main() -> None:
    """Measure one model on all scenes."""
    options = with_pictures(_options())
    figures: list[Figure] = []
    for figure in measure(options):
        figures.append(figure)
        print(f"{figure.name} {figure.value:.4g} {figure.unit} {figure.detail}", file=sys.stderr, flush=True)
    report("temporal", figures, options.json)


def _options() -> ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--video", type=Path, metavar="FILE", help="of a fixed camera")
    options.add_argument("--model", default="efficientnet_lite0", metavar="NAME", help="file name without .onnx")
    options.add_argument(
        "--cuts", default="", metavar="N,N", help="only these (default: three where the codec can win)"
    )
    options.add_argument("--strengths", default=",".join(STRENGTHS), metavar="T,T", help="of the transform codec")
    options.add_argument("--limit", type=int, default=10**6, metavar="N", help="frames of the video (default: all)")
    return options


def measure(options: Namespace) -> Iterator[Figure]:
    """All scenes, all cuts, all ways."""
    graph = load_graph(options.models / f"{options.model}.onnx")
    size = graph.inputs[0].sizes[-1], graph.inputs[0].sizes[-2]
    photographs = [
        np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), size))
        for path in sorted(options.images.rglob("*"))
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"}
    ]
    cuts = [cut_at(graph, int(cut)) for cut in options.cuts.split(",") if cut]
    cuts = cuts or [cut for cut in promising(useful_cuts(graph, ratio=8.0).cuts) if cut.index][-3:]
    transforms = calibrate_cuts(graph, cuts, [prepare(graph, options.model, view) for view in photographs[::2]])
    whole = open_slice(extract(graph, 0, graph.steps), threads=1)
    for scene in scenes(options, size):
        feeds = [prepare(graph, options.model, frame) for frame in scene.frames]
        expected = [run_named(whole, feed) for feed in feeds[::CHECKED]]
        share = f"{len(scene.frames)} frames, {scene.empty.mean():.0%} of them empty"
        yield Figure(f"{scene.name}.frames", len(scene.frames), "", share)
        pictures = dict(send_pictures(scene, expected, lambda frame: _answer(whole, graph, options.model, frame)))
        for way, points in pictures.items():
            yield from shown(f"{scene.name}.{way}", scene, points)
        for cut in cuts:
            ways = send_tensors(graph, cut, transforms, feeds, expected, options.strengths.split(","))
            for way, points in ways.items():
                yield from shown(f"{scene.name}.{cut.index}.{way}", scene, points)
            yield from compared(f"{scene.name}.{cut.index}", scene, ways, pictures)


def _answer(whole: Session, graph: ModelGraph, model: str, frame: Array) -> dict[str, Array]:
    return run_named(whole, prepare(graph, model, frame))


# Scenes ---------------------------------------------------------------------------------------------------------------


def scenes(options: Namespace, size: tuple[int, int]) -> Iterator[Scene]:
    """The video, and two made of a photograph."""
    with av.open(str(options.video)) as video:
        frames = [
            np.asarray(ImageOps.fit(Image.fromarray(frame.to_ndarray(format="rgb24")), size))
            for _, frame in zip(range(options.limit), video.decode(video=0), strict=False)
        ]
    yield Scene("video", frames, empty_stretches(frames))
    path = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})[1]
    wide = np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (size[0] + MADE_FRAMES, size[1])))
    rng = np.random.default_rng(0)
    for name, pace in (("panned", 1), ("standing", 0)):
        views = [wide[:, pace * n : pace * n + size[0]] for n in range(min(MADE_FRAMES, options.limit))]
        noisy = [np.clip(np.rint(v + rng.normal(0, NOISE, v.shape)), 0, 255).astype(np.uint8) for v in views]
        yield Scene(name, noisy, np.full(len(noisy), pace == 0))


def empty_stretches(frames: Sequence[Array]) -> Array:
    """Which frames lie in a stretch of a second and more in which nothing moves."""
    grey = np.stack([frame.mean(axis=2).astype(np.float32) for frame in frames])
    quiet = np.array([
        (np.abs(one - np.median(grey[max(0, n - AROUND) : n + AROUND : 4], axis=0)) > EMPTY_SHADES).mean() < EMPTY_SHARE
        for n, one in enumerate(grey)
    ])  # fmt: skip
    found = np.zeros(len(frames), np.bool_)
    begin = 0
    for end in range(len(quiet) + 1):
        if end == len(quiet) or not quiet[end]:
            found[begin:end] = end - begin >= FPS
            begin = end + 1
    return found


# Ways to send ---------------------------------------------------------------------------------------------------------


def send_pictures(
    scene: Scene, expected: Sequence[Mapping[str, Array]], answer: Callable[[Array], dict[str, Array]]
) -> Iterator[tuple[str, dict[str, Sent]]]:
    """The frames as JPEG, WebP and H.264."""
    for kind, qualities in QUALITIES.items():
        found = {}
        for quality in qualities:
            begun = time.perf_counter()
            sent = [recode(frame, kind, quality) for frame in scene.frames]
            both = (time.perf_counter() - begun) / len(sent)
            kept = _kept(expected, (answer(frame) for _, frame in sent[::CHECKED]))
            found[f"q{quality}"] = Sent(np.array([size for size, _ in sent]), both, 0.0, kept)
        yield kind, found
    streams = {}
    for factor in RATE_FACTORS:
        begun = time.perf_counter()
        sizes, frames = stream(scene.frames, factor)
        both = (time.perf_counter() - begun) / len(frames)
        streams[f"crf{factor}"] = Sent(sizes, both, 0.0, _kept(expected, (answer(f) for f in frames[::CHECKED])))
    yield "h264", streams


def stream(frames: Sequence[Array], factor: int) -> tuple[Array, list[Array]]:
    """Bytes of each frame as H.264 without delay, and what is decoded."""
    target = io.BytesIO()
    sizes = []
    with av.open(target, "w", format="h264") as out:
        track: Any = out.add_stream("libx264", rate=FPS)
        track.width, track.height, track.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        track.options = {"crf": str(factor), "preset": "medium", "tune": "zerolatency", "g": str(KEY_FRAMES)}
        for frame in [*frames, None]:
            packets = track.encode(av.VideoFrame.from_ndarray(frame, "rgb24") if frame is not None else None)
            for packet in packets:
                sizes.append(packet.size)
                out.mux(packet)
    with av.open(io.BytesIO(target.getvalue()), "r", format="h264") as found:
        return np.array(sizes), [frame.to_ndarray(format="rgb24") for frame in found.decode(video=0)]


def send_tensors(
    graph: ModelGraph,
    cut: Cut,
    transforms: Mapping[str, Calibrated],
    feeds: Sequence[Mapping[str, Array]],
    expected: Sequence[Mapping[str, Array]],
    strengths: Sequence[str],
) -> dict[str, dict[str, Sent]]:
    """The transform codec, alone and as differences."""
    own = {tensor.name: transforms[tensor.name] for tensor in cut.tensors if tensor.name in transforms}
    if len(own) < len(cut.tensors):
        raise SystemExit(f"cut {cut.index} carries tensors that are not transformed: choose others with --cuts")
    nodes = {name: node_coder(one.transform) for name, one in own.items()}
    coders = {wire_name(name): Coder(one.tables) for name, one in own.items()}
    before = extract(graph, 0, cut.index, codec_out="t", transforms=nodes)
    head = open_slice(before, threads=1)
    tail = open_slice(extract(graph, cut.index, graph.steps, codec_in="t", transforms=nodes), threads=1)
    crossing = [run_named(head, feed) for feed in feeds]
    return {
        way: {name: _send(crossing, coders, SHIFTS[name], slack, tail, expected) for name in strengths}
        for way, slack in SLACKS.items()
    }


def _send(
    crossing: Sequence[Mapping[str, Array]],
    coders: Mapping[str, Coder],
    shift: int,
    slack: float | None,
    tail: Session,
    expected: Sequence[Mapping[str, Array]],
) -> Sent:
    sizes, times, answers = [], [], []
    memories = {name: _Memory(coder) for name, coder in coders.items()}
    for number, values in enumerate(crossing):
        done = {name: memories[name].send(values[name], shift, slack, key=number % KEY_FRAMES == 0) for name in coders}
        sizes.append(sum(size for size, _, _, _ in done.values()))
        times.append([sum(column) for column in zip(*((e, d) for _, e, d, _ in done.values()), strict=True)])
        if number % CHECKED == 0:
            answers.append(run_named(tail, {**values, **{name: array for name, (_, _, _, array) in done.items()}}))
    encode_s, decode_s = np.median(np.array(times), axis=0)
    return Sent(np.array(sizes), float(encode_s), float(decode_s), _kept(expected, iter(answers)))


class _Memory:
    """One tensor's two ends."""

    def __init__(self, coder: Coder) -> None:
        self._coder, self._held, self._last = coder, Held(), None

    _last: Reference | None

    def send(self, values: Array, shift: int, slack: float | None, *, key: bool) -> tuple[int, float, float, Array]:
        """Bytes, seconds to encode and to decode, and what arrives."""
        begun = time.perf_counter()
        if slack is None:
            frame = self._coder.encode(values, shift)
            between = time.perf_counter()
            assert frame is not None
            return len(frame), between - begun, *_timed(partial(self._coder.decode, frame, values.shape))
        before = None if key else self._last
        now = settle(self._coder, values, shift, before, slack)
        assert now is not None
        told = difference(self._coder, now, before) if before is not None else None
        frame = told.frame if told is not None else key_frame(self._coder, now)
        between = time.perf_counter()
        taken, array = _timed(lambda: decode(self._coder, frame, values.shape, self._held).values(values.shape))
        self._last = now
        self._held.clear()
        self._held.keep(now)
        return len(frame), between - begun, taken, array


def _timed(run: Callable[[], Array]) -> tuple[float, Array]:
    begun = time.perf_counter()
    found = run()
    return time.perf_counter() - begun, found


def _kept(expected: Sequence[Mapping[str, Array]], found: Iterator[Mapping[str, Array]]) -> float:
    same = [
        same_answer(list(a.values()), [b[name] for name in a])
        for a, b in zip(expected, found, strict=True)
    ]  # fmt: skip
    return float(np.mean(same))


# Figures --------------------------------------------------------------------------------------------------------------


def shown(label: str, scene: Scene, points: Mapping[str, Sent]) -> Iterator[Figure]:
    """Each setting's bytes."""
    for setting, sent in points.items():
        empty = f", empty {sent.sizes[scene.empty].mean():.0f} B" if scene.empty.any() else ""
        times = f"encode {sent.encode_s * 1e3:.2f} ms, decode {sent.decode_s * 1e3:.2f} ms"
        if not sent.decode_s:
            times = f"both {sent.encode_s * 1e3:.2f} ms"
        detail = f"agreement {sent.kept:.3f}{empty}, {times}"
        yield Figure(f"{label}.{setting}", float(sent.sizes.mean()), "B", detail)


def compared(
    label: str, scene: Scene, ways: Mapping[str, Mapping[str, Sent]], pictures: Mapping[str, Mapping[str, Sent]]
) -> Iterator[Figure]:
    """Each way's bytes over those of frames that stand alone, at the agreement that these have; all, and empty ones."""
    for part, chosen in (("", np.ones(len(scene.frames), np.bool_)), (".empty", scene.empty)):
        if not chosen.any():
            continue
        curves = {way: _curve(points, chosen) for way, points in {**ways, **pictures}.items()}
        for way, curve in curves.items():
            if way == "alone":
                continue
            alone = curves["alone"]
            if way in ways:
                same = [point.size / other.size for point, other in zip(curve, alone, strict=True)]
                yield _ratio(f"{label}.{way}_over_alone{part}.at_strength", same, len(alone))
            equal = [bytes_at(curve, point.agreement) / point.size for point in alone if point.agreement < 1]
            if known := [ratio for ratio in equal if np.isfinite(ratio)]:
                yield _ratio(f"{label}.{way}_over_alone{part}.at_agreement", known, len(alone))


def _ratio(name: str, ratios: Sequence[float], count: int) -> Figure:
    detail = f"{min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} strengths of {count}"
    return Figure(name, float(np.median(ratios)), "x", detail)


def _curve(points: Mapping[str, Sent], chosen: Array) -> list[Rate]:
    return [
        Rate(name, float(sent.sizes[chosen].mean()), sent.kept, float("nan"))
        for name, sent in points.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
