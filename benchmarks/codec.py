"""Bytes at equal agreement: the transform codec against JALAD, DynO, and the camera's own JPEG and WebP.

    .venv/bin/python benchmarks/codec.py --models DIR --images DIR [--labels FILE] [--measure M:F] [--model NAME]

Pictures of the folder (or, where an .npz holds x of the model's size, channels first or last, and y, those) are put in
order of their names: each second one calibrates, the others are reported, each in so many views (the middle, mirrored,
corners). Agreement is the share of views with the un-split model's own best class, or, for outputs that are no scores,
of those within 5 % relative error. Bytes are payload alone, mean per view; at an agreement between two settings they
are interpolated. Times are of one thread: the codec's nodes, and its coder.
"""

from __future__ import annotations

import csv
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _codings import BITS, QUALITIES, dyno_bytes, jalad_bytes, quantise, recode
from _report import Figure, parser, report
from PIL import Image, ImageOps

from splitbus_gateway.graph import Cut, ModelGraph, cut_at, extract, load_graph, open_slice, useful_cuts
from splitbus_gateway.measures import Measure, load_measure
from splitbus_gateway.sizes import measure as measure_cuts
from splitbus_gateway.transform import node_coder, wire_name
from splitbus_gateway.transform.calibrate import Calibrated
from splitbus_gateway.transform.model import calibrate_cuts, promising
from splitbus_gateway.walk import Here, run_named, walk
from splitbus_runtime.engine import Array, Session
from splitbus_runtime.sameness import SAME_ERROR, relative_error
from splitbus_schemas.codecs import SHIFTS
from splitbus_schemas.entropy import METHODS, Coder

TARGETS = (0.95, 0.98)
TIMED = 16
COMPARED = "t9"

PREPARED: Mapping[str, tuple[float, float, bool]] = {
    "efficientnet": (127.0, 128.0, False),
    "mobilenet": (0.0, 255.0, False),
    "resnet8": (0.0, 1.0, False),
    "ultraface": (127.0, 128.0, False),
    "fastestdet": (0.0, 255.0, True),
}
"""By the beginning of a file's name: mean, divisor, and whether channels are BGR. Others are taken from 0 to 1."""

RATIO = 8.0
"""Cuts may carry so many times the input's bytes: small pictures grow at first."""

MARGIN = 256 / 224
"""Pictures are read so much larger than the model's input."""

VIEWS = ((0.5, 0.5, False), (0.5, 0.5, True), (0, 0, False), (1, 1, True), (0, 1, False), (1, 0, True))
"""Where a view lies, and whether it is mirrored."""

Answers = list[dict[str, Array]]


@dataclass(frozen=True)
class Point:
    """A setting of a way to send: mean bytes, and what the answers keep."""

    setting: str
    size: float
    agreement: float
    accuracy: float


@dataclass(frozen=True)
class Subject:
    """A model and its pictures (uint8 RGB), the reported ones with the un-split model's answers."""

    graph: ModelGraph
    name: str
    calibration: list[Array]
    pictures: list[Array]
    labels: list[int]
    whole: Session
    expected: Answers
    measure: Measure | None = None

    def feed(self, pixels: Array) -> dict[str, Array]:
        """What the model is given of a picture."""
        mean, divisor, bgr = next(
            (how for key, how in PREPARED.items() if self.name.startswith(key)), (0.0, 255.0, False)
        )
        values = (pixels[..., ::-1] if bgr else pixels).astype(np.float32)
        values = np.moveaxis((values - mean) / divisor, -1, 0)
        return {self.graph.inputs[0].name: np.ascontiguousarray(values[None], np.float32)}

    def point(self, setting: str, sizes: Sequence[int], found: Answers) -> Point:
        """How good a setting is that sent so many bytes and led to these answers."""
        holds = self.measure.holds if self.measure else _same
        same = [holds(*pair) for pair in zip(self.expected, found, strict=True)]
        return Point(setting, float(np.mean(sizes)), float(np.mean(same)), self.accuracy(found))

    def accuracy(self, found: Answers) -> float:
        """The share of right answers; not a number without labels."""
        if not self.labels:
            return float("nan")
        best = [int(next(iter(answer.values())).argmax()) for answer in found]
        return float(np.mean(np.array(best) == self.labels))


def _same(expected: Mapping[str, Array], found: Mapping[str, Array]) -> bool:
    first = next(iter(expected))
    if expected[first].ndim == 2:
        return int(expected[first].argmax()) == int(found[first].argmax())
    return all(relative_error(expected[name], found[name]) <= SAME_ERROR for name in expected)


def main() -> None:
    """Measure every model in the folder."""
    options = _options().parse_args()
    figures: list[Figure] = []
    for path in sorted(options.models.glob("*.onnx")):
        if options.model in {"", path.stem}:
            for figure in measure_model(read_subject(path, options), options):
                figures.append(figure)
                print(f"{figure.name} {figure.value:.4g} {figure.unit} {figure.detail}", file=sys.stderr)
    report("codec", figures, options.json)


def _options() -> ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--labels", type=Path, metavar="FILE", help="a .csv with the columns file and class_index")
    options.add_argument(
        "--measure", default="", metavar="M:F", help="what counts as the same answer, as for model add"
    )
    options.add_argument("--model", default="", metavar="NAME", help="only the model of this file, without .onnx")
    options.add_argument("--cuts", default="", metavar="N,N", help="only these cuts (default: where the codec can win)")
    options.add_argument("--views", type=int, default=4, metavar="N", help="of each reported picture (default: 4)")
    options.add_argument("--limit", type=int, default=400, metavar="N", help="pictures in all (default: 400)")
    return options


def read_subject(path: Path, options: Namespace) -> Subject:
    """The model with its pictures."""
    graph = load_graph(path)
    height, width = graph.inputs[0].sizes[-2:]
    pictures, labels = _arrays(options, (height, width)) or _photographs(options, (height, width))
    whole = open_slice(extract(graph, 0, graph.steps), threads=1)
    calibration = [view for picture in pictures[::2] for view in _views(picture, (height, width), 2)]
    reported = [view for picture in pictures[1::2] for view in _views(picture, (height, width), options.views)]
    repeated = [label for label in labels[1::2] for _ in range(options.views)]
    measure = load_measure(options.measure) if options.measure else None
    subject = Subject(graph, path.stem, calibration, reported, repeated, whole, [], measure)
    subject.expected.extend(run_named(whole, subject.feed(pixels)) for pixels in subject.pictures)
    return subject


def _arrays(options: Namespace, size: tuple[int, int]) -> tuple[list[Array], list[int]] | None:
    for path in sorted(options.images.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            pictures = stored["x"][: options.limit] if "x" in stored else np.empty(0)
            if pictures.shape[1:] == (3, *size):
                pictures = np.moveaxis(pictures, 1, -1)
            if pictures.shape[1:] == (*size, 3):
                return list(pictures.astype(np.uint8)), [int(label) for label in stored["y"][: options.limit]]
    return None


def _photographs(options: Namespace, size: tuple[int, int]) -> tuple[list[Array], list[int]]:
    paths = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    paths = paths[: options.limit]
    larger = (round(size[1] * MARGIN), round(size[0] * MARGIN))
    pictures = [np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), larger)) for path in paths]
    if options.labels is None:
        return pictures, []
    with options.labels.open(encoding="utf-8") as lines:
        known = {row["file"]: int(row["class_index"]) for row in csv.DictReader(lines)}
    return pictures, [known[path.name] for path in paths]


def _views(picture: Array, size: tuple[int, int], count: int) -> list[Array]:
    """The middle, the same mirrored, then the corners."""
    spare = picture.shape[0] - size[0], picture.shape[1] - size[1]
    views = []
    for down, right, mirrored in VIEWS[:count]:
        top, left = round(spare[0] * down), round(spare[1] * right)
        view = picture[top : top + size[0], left : left + size[1]]
        views.append(view[:, ::-1] if mirrored else view)
    return views


# Ways to send ---------------------------------------------------------------------------------------------------------


def measure_model(subject: Subject, options: Namespace) -> Iterator[Figure]:
    """All ways to send at all cuts of a model."""
    graph, name = subject.graph, subject.name
    if subject.labels:
        yield Figure(
            f"{name}.whole.accuracy", subject.accuracy(subject.expected), "", f"{len(subject.pictures)} pictures"
        )
    pictures = {kind: send_pictures(subject, kind) for kind in QUALITIES}
    for kind, points in pictures.items():
        yield from shown(f"{name}.{kind}", points)
    cuts = [cut_at(graph, int(cut)) for cut in options.cuts.split(",") if cut]
    cuts = cuts or [cut for cut in promising(useful_cuts(graph, ratio=RATIO).cuts) if cut.index]
    begun = time.perf_counter()
    transforms = calibrate_cuts(graph, cuts, [subject.feed(pixels) for pixels in subject.calibration])
    yield Figure(f"{name}.calibration", time.perf_counter() - begun, "s", f"{len(cuts)} cuts, wall time")
    timed = measure_cuts(graph, cuts, [subject.feed(pixels) for pixels in subject.pictures[:TIMED]],
                    codecs=tuple(SHIFTS), transforms=transforms)  # fmt: skip
    for here in walk(graph, cuts, [subject.feed(pixels) for pixels in subject.pictures]):
        label = f"{name}.{here.cut.index}"
        ways = send_tensors(subject, here, transforms)
        raw = sum(tensor.nbytes for tensor in here.cut.tensors)
        yield Figure(f"{label}.float32", raw, "B", f"head is {head_share(subject, here.cut):.0%} of the model's time")
        for way, points in ways.items():
            yield from shown(f"{label}.{way}", points)
        yield from compared(label, ways | pictures)
        yield from within_a_point(label, raw, ways, subject.accuracy(subject.expected))
        yield from coders_compared(subject, here.cut, transforms)
        coding = [size for size in timed.sizes if size.cut == here.cut.index]
        for size in coding:
            yield Figure(f"{label}.{size.codec}.coding", size.encode_ms + size.decode_ms, "ms",
                         f"encode {size.encode_ms:.2f}, decode {size.decode_ms:.2f}")  # fmt: skip


def shown(label: str, points: Sequence[Point]) -> Iterator[Figure]:
    """Each setting's bytes, with what the answers keep."""
    for point in points:
        accuracy = "" if np.isnan(point.accuracy) else f", accuracy {point.accuracy:.3f}"
        yield Figure(f"{label}.{point.setting}", point.size, "B", f"agreement {point.agreement:.3f}{accuracy}")


def compared(label: str, ways: Mapping[str, Sequence[Point]]) -> Iterator[Figure]:
    """Our bytes over each other way's, at equal agreement."""
    for target in TARGETS:
        ours = bytes_at(ways["transform"], target)
        yield Figure(f"{label}.transform.at{target:g}", ours, "B")
        for way in ("jalad", "dyno", "jpeg", "webp"):
            theirs = bytes_at(ways[way], target)
            yield Figure(f"{label}.against_{way}.at{target:g}", ours / theirs, "x", f"{ours:.0f} of {theirs:.0f} B")


def within_a_point(
    label: str, raw: int, ways: Mapping[str, Sequence[Point]], accuracy: float
) -> Iterator[Figure]:  # fmt: skip
    """How many times fewer bytes than float32 each way sends at one point of accuracy lost, at most; without labels at
    one answer in a hundred that changes.
    """
    for way, points in ways.items():
        good = [p for p in points if (p.agreement if np.isnan(accuracy) else 1 - accuracy + p.accuracy) >= 0.99 - 1e-9]
        best = min(good, key=lambda point: point.size, default=None)
        if best:
            yield Figure(f"{label}.{way}.within_a_point", raw / best.size, "x smaller", f"{best.setting}")


def bytes_at(points: Sequence[Point], target: float) -> float:
    """The least bytes at which answers are kept so often, between two settings by their logarithms; nan when never."""
    before: tuple[float, float] | None = None
    for point in sorted(points, key=lambda one: one.size):
        if point.agreement >= target:
            if before is None:
                return point.size
            share = (target - before[1]) / (point.agreement - before[1])
            return float(before[0] * (point.size / before[0]) ** share)
        if before is None or point.agreement >= before[1]:
            before = point.size, point.agreement
    return float("nan")


def send_pictures(subject: Subject, kind: str) -> list[Point]:
    """The camera sends its picture, and a worker runs the whole model."""
    points = []
    for quality in QUALITIES[kind]:
        sent = [recode(pixels, kind, quality) for pixels in subject.pictures]
        found = [run_named(subject.whole, subject.feed(pixels)) for _, pixels in sent]
        points.append(subject.point(f"q{quality}", [size for size, _ in sent], found))
    return points


def send_tensors(subject: Subject, here: Here, transforms: Mapping[str, Calibrated]) -> dict[str, list[Point]]:
    """The transform codec, JALAD and DynO at a cut. Tensors that are not float go as they are."""
    graph, ways = subject.graph, dict[str, list[Point]](transform=[], jalad=[], dyno=[])
    tail = open_slice(extract(graph, here.cut.index, graph.steps), threads=1)
    for bits in BITS:
        coded = [{name: quantise(array, bits) for name, array in values.items()} for values in here.values]
        found = [answer | run_named(tail, {name: pair[1] for name, pair in one.items()})
                 for one, answer in zip(coded, here.done, strict=True)]  # fmt: skip
        for way, size in (("jalad", lambda codes: jalad_bytes(codes, bits)), ("dyno", dyno_bytes)):  # noqa: B023
            sizes = [sum(size(codes) for codes, _ in one.values()) for one in coded]
            ways[way].append(subject.point(f"{bits}bit", sizes, found))
    ways["transform"] = send_coefficients(subject, here, transforms)
    return ways


def send_coefficients(subject: Subject, here: Here, transforms: Mapping[str, Calibrated]) -> list[Point]:
    """The transform codec at every strength: slices that make and take the coefficients, and the coder between them."""
    graph, index = subject.graph, here.cut.index
    own = {tensor.name: transforms[tensor.name] for tensor in here.cut.tensors if tensor.name in transforms}
    nodes = {name: node_coder(one.transform) for name, one in own.items()}
    coders = {wire_name(name): Coder(one.tables) for name, one in own.items()}
    before = extract(graph, 0, index, codec_out="t", transforms=nodes)
    head = open_slice(before, threads=1)
    tail = open_slice(extract(graph, index, graph.steps, codec_in="t", transforms=nodes), threads=1)
    names = [spec.name for spec in before.outputs if spec.name not in before.finished]
    crossing = [run_named(head, subject.feed(pixels)) for pixels in subject.pictures]
    points = []
    for setting, shift in SHIFTS.items():
        sizes, found = [], []
        for values, done in zip(crossing, here.done, strict=True):
            sent = {name: _sent(values[name], coders.get(name), shift) for name in names}
            sizes.append(sum(size for size, _ in sent.values()))
            found.append(done | run_named(tail, {name: array for name, (_, array) in sent.items()}))
        points.append(subject.point(setting, sizes, found))
    return points


def coders_compared(subject: Subject, cut: Cut, transforms: Mapping[str, Calibrated]) -> Iterator[Figure]:
    """The entropy coder's methods on the same coefficients: bytes, and microseconds there and back."""
    own = {tensor.name: transforms[tensor.name] for tensor in cut.tensors if tensor.name in transforms}
    nodes = {name: node_coder(one.transform) for name, one in own.items()}
    head = open_slice(extract(subject.graph, 0, cut.index, codec_out="t", transforms=nodes), threads=1)
    crossing = [run_named(head, subject.feed(pixels)) for pixels in subject.pictures[:TIMED]]
    for name, one in own.items():
        coder, shift = Coder(one.tables), SHIFTS[COMPARED]
        arrays = [values[wire_name(name)] for values in crossing]
        for method in METHODS:
            sizes, there, back = [], [], []
            for array in (arrays[0], *arrays):
                begun = time.perf_counter()
                frame = coder.encode(array, shift, method)
                between = time.perf_counter()
                assert frame is not None
                coder.decode(frame, array.shape)
                back.append(time.perf_counter() - between)
                there.append(between - begun)
                sizes.append(len(frame))
            times = f"encode {np.median(there) * 1e6:.0f} us, decode {np.median(back) * 1e6:.0f} us"
            label = f"{subject.name}.{cut.index}.{COMPARED}.{method}"
            yield Figure(label, float(np.mean(sizes[1:])), "B", f"{times}, {arrays[0].size} coefficients")


def _sent(array: Array, coder: Coder | None, shift: int) -> tuple[int, Array]:
    """Bytes, and what arrives."""
    frame = coder.encode(array, shift) if coder else None
    if coder is None or frame is None:
        return array.nbytes, array
    return len(frame), coder.decode(frame, array.shape)


def head_share(subject: Subject, cut: Cut, runs: int = 15) -> float:
    """The head's share of the model's time."""
    feed = subject.feed(subject.pictures[0])
    head = open_slice(extract(subject.graph, 0, cut.index), threads=1)
    times: list[list[float]] = [[], []]
    for _ in range(runs):
        for kept, session in zip(times, (head, subject.whole), strict=True):
            begun = time.perf_counter()
            run_named(session, feed)
            kept.append(time.perf_counter() - begun)
    return float(np.median(times[0]) / np.median(times[1]))


if __name__ == "__main__":
    main()
