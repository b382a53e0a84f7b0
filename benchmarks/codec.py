"""Bytes at equal agreement: the transform codec against JALAD, DynO, and the camera's own JPEG and WebP.

    .venv/bin/python benchmarks/codec.py --models DIR --images DIR [--labels FILE] [--measure M:F] [--model NAME,NAME]

Pictures of the folder (or, where an .npz holds x of the model's size, channels first or last, and y, those) are put in
order of their names: each second one calibrates, the others are reported, each in so many views (the middle, mirrored,
corners). Agreement is the share of views with the un-split model's own best class, or, for outputs that are no scores,
of those within 5 % relative error; two detectors have a measure of their own. Bytes are payload alone, mean per view;
at an agreement between two settings they are interpolated. Times are of one thread: the codec's nodes, and its coder.

At the end of each model: every way's triple (the device's computing, bytes, what is kept) at one point lost, and the
cuts where ours has both fewer bytes and less latency than all others (see `_triples`); the largest factor below
float32; and the planner's choice from the table on three links with what coding takes of it (see `_plans`).
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from _codings import BITS, QUALITIES, dyno_bytes, jalad_bytes, quantise, recode
from _plans import plans
from _report import Figure, parser, report, with_pictures
from _subjects import Point, Subject, read_subject
from _triples import WORTH, AtCut, Measured, best_factor, triples
from _twice import twice

from splitbus_gateway.graph import Cut, cut_at, extract, open_slice, useful_cuts
from splitbus_gateway.judging import Judge
from splitbus_gateway.records import CodedSize
from splitbus_gateway.second_look import SHARE
from splitbus_gateway.sizes import measure as measure_cuts
from splitbus_gateway.transform import node_coder, wire_name
from splitbus_gateway.transform.calibrate import Calibrated
from splitbus_gateway.transform.layout import objection
from splitbus_gateway.transform.model import calibrate_cuts, promising
from splitbus_gateway.walk import Here, run_named, walk
from splitbus_runtime.engine import Array
from splitbus_schemas.codecs import PICTURES, SHIFTS, SINGLE
from splitbus_schemas.entropy import METHODS, Coder

TARGETS = (0.95, 0.98)
RIVALS = ("jalad", "dyno", "jpeg", "webp")
TIMED = 16
JUDGED = 32
"""Views on which the planner's table of the simpler codecs is measured."""
COMPARED = "t9"

FLOAT_BYTES = 4

RATIO = 8.0
"""Cuts may carry so many times the input's bytes: small pictures grow at first."""


def main() -> None:
    """Measure every model in the folder."""
    options = with_pictures(_options())
    figures: list[Figure] = []
    for path in sorted(options.models.glob("*.onnx")):
        if not options.model or path.stem in options.model.split(","):
            for figure in measure_model(read_subject(path, options), options):
                figures.append(figure)
                print(f"{figure.name} {figure.value:.4g} {figure.unit} {figure.detail}", file=sys.stderr, flush=True)
    figures += summed(figures)
    report("codec", figures, options.json)


def summed(figures: Sequence[Figure]) -> Iterator[Figure]:
    """Over all models: how many are so much below float32, and the largest share of coding on each link."""
    factors = {figure.name.split(".")[-1]: figure.value for figure in figures if ".best_factor." in figure.name}
    good = [name for name, factor in factors.items() if factor >= WORTH]
    yield Figure("codec.best_factor.models", len(good), f"of {len(factors)}", f"{WORTH:g}x and more: {', '.join(good)}")
    shares: dict[str, list[Figure]] = {}
    for figure in figures:
        if figure.name.endswith(".coding_share"):
            shares.setdefault(figure.name.split(".")[-2], []).append(figure)
    for link, some in shares.items():
        worst = max(some, key=lambda figure: figure.value)
        yield Figure(f"codec.coding_share.{link}", worst.value, "at most", worst.name.split(".")[0])


def _options() -> ArgumentParser:
    options = parser(__doc__)
    options.add_argument("--labels", type=Path, metavar="FILE", help="a .csv with the columns file and class_index")
    options.add_argument(
        "--measure", default="", metavar="M:F", help="what counts as the same answer, as for model add"
    )
    options.add_argument("--model", default="", metavar="NAME,NAME", help="only these files, without .onnx")
    options.add_argument("--cuts", default="", metavar="N,N", help="only these cuts (default: where the codec can win)")
    options.add_argument("--views", type=int, default=4, metavar="N", help="of each reported picture (default: 4)")
    options.add_argument("--slowdown", type=float, default=10.0, metavar="X", help="of the device (default: 10)")
    options.add_argument("--limit", type=int, default=400, metavar="N", help="pictures in all (default: 400)")
    return options


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
    codecs = [codec for codec in SINGLE if codec not in PICTURES]
    timed = measure_cuts(graph, cuts, [subject.feed(pixels) for pixels in subject.pictures[:JUDGED]],
                    codecs=codecs, transforms=transforms, judge=Judge(None, subject.measure))  # fmt: skip
    known = []
    for here in walk(graph, cuts, [subject.feed(pixels) for pixels in subject.pictures]):
        coding = {size.codec: size for size in timed.sizes if size.cut == here.cut.index}
        at = measure_cut(subject, here, transforms, coding, timed.whole_ms)
        known.append(at)
        yield from figures_of(subject, at, pictures)
        yield from coders_compared(subject, here.cut, transforms)
    found = Measured(subject, timed.whole_ms, timed.answer_bytes, known, pictures)
    yield from triples(found, options.slowdown)
    yield from plans(found, options.slowdown)
    yield best_factor(found)


def measure_cut(
    subject: Subject, here: Here, transforms: Mapping[str, Calibrated], coding: Mapping[str, CodedSize], whole_ms: float
) -> AtCut:
    """All ways to send at a cut."""
    ways = send_tensors(subject, here, transforms)
    float_bytes = sum(tensor.elements * FLOAT_BYTES for tensor in here.cut.tensors)
    return AtCut(here.cut.index, float_bytes, head_share(subject, here.cut) * whole_ms, ways, coding)


def figures_of(subject: Subject, at: AtCut, pictures: Mapping[str, Sequence[Point]]) -> Iterator[Figure]:
    """Of a cut: every setting, comparisons, and times."""
    label = f"{subject.name}.{at.index}"
    yield Figure(f"{label}.float32", at.float_bytes, "B", f"the head takes {at.head_ms:.2f} ms")
    for way, points in at.ways.items():
        yield from shown(f"{label}.{way}", points)
    yield from compared(label, {**at.ways, **pictures})
    yield from asked_twice(label, {**at.ways, **pictures})
    yield from within_a_point(subject, label, at)
    for codec, size in at.coding.items():
        yield Figure(f"{label}.{codec}.coding", size.encode_ms + size.decode_ms, "ms",
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
        for way in RIVALS:
            theirs = bytes_at(ways[way], target)
            yield Figure(f"{label}.against_{way}.at{target:g}", ours / theirs, "x", f"{ours:.0f} of {theirs:.0f} B")


def asked_twice(label: str, ways: Mapping[str, Sequence[Point]]) -> Iterator[Figure]:
    """The better of sending once and of sending doubtful frames again, over each other way; and both sent again."""
    again = {way: sent_again(way, points) for way, points in ways.items()}
    for target in TARGETS if again["transform"] else ():
        sizes = {way: bytes_at(points, target) for way, points in again.items()}
        ours = sizes["transform"]
        yield Figure(f"{label}.again.at{target:g}", ours, "B", f"{SHARE:.0%} of the frames sent again")
        best = np.fmin(ours, bytes_at(ways["transform"], target))
        for way in RIVALS:
            once, twice_too = bytes_at(ways[way], target), sizes[way]
            detail = f"{best:.0f} of {once:.0f} B"
            yield Figure(f"{label}.best_against_{way}.at{target:g}", float(best / once), "x", detail)
            detail = f"both sent again; {ours:.0f} of {twice_too:.0f} B"
            yield Figure(f"{label}.again_against_{way}.at{target:g}", ours / twice_too, "x", detail)


def sent_again(way: str, points: Sequence[Point]) -> list[Point]:
    """What a way takes and keeps when doubtful frames are sent again; nothing where answers have no scores."""
    finest_first = sorted((point.frames for point in points if point.frames), key=lambda frames: -frames.sizes.mean())
    return [Point(way, size, agreement, float("nan")) for size, agreement in twice(finest_first)]


def within_a_point(subject: Subject, label: str, at: AtCut) -> Iterator[Figure]:
    """How many times fewer bytes than float32 each way sends at one point lost, at most."""
    for way, points in at.ways.items():
        best = min(subject.within_a_point(points), key=lambda point: point.size, default=None)
        if best:
            yield Figure(f"{label}.{way}.within_a_point", at.float_bytes / best.size, "x smaller", f"{best.setting}")


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
    real = {tensor.name for tensor in here.cut.tensors if not objection(tensor) or tensor.is_float}
    rest = [{name: array for name, array in values.items() if name not in real} for values in here.values]
    for bits in BITS:
        coded = [{name: quantise(values[name], bits) for name in real} for values in here.values]
        found = [answer | run_named(tail, {**others, **{name: pair[1] for name, pair in one.items()}})
                 for one, others, answer in zip(coded, rest, here.done, strict=True)]  # fmt: skip
        for way, size in (("jalad", lambda codes: jalad_bytes(codes, bits)), ("dyno", dyno_bytes)):  # noqa: B023
            sizes = [sum(size(codes) for codes, _ in one.values()) + sum(array.nbytes for array in others.values())
                     for one, others in zip(coded, rest, strict=True)]  # fmt: skip
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
