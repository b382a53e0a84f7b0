"""`splitbus model`: registers, lists, exports and removes the models in a state folder, the daemon running or not."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console

from splitbus_cli.layers import layered
from splitbus_cli.progress import progress_bar
from splitbus_cli.registry import open_gateway_registry
from splitbus_cli.tables import add_row, new_table
from splitbus_cli.text import milliseconds, percent, shape, size
from splitbus_gateway.config import GatewayConfig, load_config
from splitbus_gateway.graph.images import Color, ImageInput, Layout
from splitbus_gateway.measures import Measure, load_measure
from splitbus_gateway.records import ModelRecord
from splitbus_gateway.registry import Registry
from splitbus_schemas.errors import ConfigError


def open_registry(config: Path | None, state_dir: Path | None) -> Registry:
    """The registry of the gateway with that configuration file or state folder. Raises ConfigError."""
    return open_gateway_registry(layered(GatewayConfig, load_config, config, {"state_dir": state_dir}))


@dataclass(frozen=True)
class ImageOptions:
    """What the command line says of an image input, as text."""

    name: str | None = None
    mean: str | None = None
    std: str | None = None
    scale: str | None = None
    layout: Layout | None = None
    color: Color | None = None
    size: str | None = None

    def read(self) -> ImageInput | None:
        """The declaration; None without one. Raises ConfigError for what cannot be."""
        if self.name is None:
            given = [option.name for option in fields(self) if getattr(self, option.name) is not None]
            if given:
                raise ConfigError(f"--{given[0]} says how an image becomes an input: name it with --image-input")
            return None
        return ImageInput(
            name=self.name,
            mean=_numbers("--mean", self.mean or "0"),
            std=_numbers("--std", self.std or "1"),
            scale=_fraction(self.scale or "1/255"),
            layout=self.layout,
            color=self.color or "rgb",
            size=_size(self.size) if self.size else None,
        )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} {text}: give one number, or one for each of R,G,B") from error


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"--scale {text}: give 1/255 or 1") from error


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ConfigError(f"--size {text}: give WIDTHxHEIGHT in pixels, 640x480 for one")
    return int(width), int(height)


@dataclass(frozen=True)
class JudgeOptions:
    """How answers are judged: by labels, by a function of the owner's own."""

    labels: Path | None = None
    measure: Measure | None = None


def load_judge(labels: Path | None, measure: str | None) -> JudgeOptions:
    """What the command line says of it. Raises ConfigError."""
    return JudgeOptions(labels, load_measure(measure) if measure else None)


def add(
    registry: Registry,
    name: str,
    path: Path,
    samples: Path | None,
    image: ImageInput | None,
    judge: JudgeOptions,
    *,
    calibrate: Path | None = None,
    replace: bool,
    as_json: bool,
) -> None:
    """Register a model and print what came of it. Raises ModelError, ConfigError."""
    with progress_bar() as progress:
        task = progress.add_task("reading the model", total=None)
        registry.add(
            name,
            path,
            samples,
            image=image,
            calibrate=calibrate,
            labels=judge.labels,
            measure=judge.measure,
            replace=replace,
            progress=lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
        )
    record = registry.get(name)
    if as_json:
        print(json.dumps(facts(record), indent=2))
        return
    cuts = len([cut for cut in record.cuts if cut.index])
    whole = record.card.whole_because
    print(
        f"added {name}: {record.card.nodes} nodes, {cuts} useful cuts, {size(_bytes(record))}, measured on "
        f"{record.sample_count} {'made-up inputs' if record.samples == 'synthetic' else 'samples'}"
    )
    if record.accuracy is not None:
        print(f"the un-split model is right on {percent(record.accuracy)} of them")
    if record.card.made_from:
        print(f"it is a model of its own that takes frames: open it by name, or splitbus model export {name} FILE")
    if whole:
        print(f"served whole: {whole}")
    if record.samples == "synthetic":
        print("give real inputs with --samples: coded sizes and the codecs' agreement depend on them")


def export(registry: Registry, name: str, target: Path, *, replace: bool) -> None:
    """Write a registered model as a file that a camera can open. Raises ModelError."""
    card = registry.export(name, target, replace=replace)
    inputs = ", ".join(f"{spec.name} {spec.dtype} {shape(spec.shape)}" for spec in card.inputs)
    beside = f" and {len(card.files) - 1} files of weights beside it" if len(card.files) > 1 else ""
    print(f"wrote {target}{beside}: takes {inputs}")


def show(registry: Registry, *, as_json: bool) -> None:
    """Print the registered models."""
    records = registry.list()
    if as_json:
        print(json.dumps([facts(record) for record in records], indent=2))
        return
    for outdated in registry.outdated():
        print(outdated.remedy)
    if not records:
        print("No model is registered: splitbus model add NAME FILE")
        return
    table = new_table(None, "name", "model", "size", "nodes", "cuts", "whole here", "inputs", "samples", "added")
    for record in records:
        add_row(
            table,
            record.name,
            record.model[:16],
            size(_bytes(record)),
            str(record.card.nodes),
            str(len([cut for cut in record.cuts if cut.index])),
            milliseconds(record.whole_ms),
            ", ".join(f"{spec.name} {spec.dtype} {shape(spec.shape)}" for spec in record.card.inputs),
            f"{record.sample_count} {Path(record.samples).name}",
            record.added,
        )
    Console().print(table)


def remove(registry: Registry, name: str) -> None:
    """Forget a model. Raises ModelError when there is none of that name."""
    registry.remove(name)
    print(f"removed {name}")


def facts(record: ModelRecord) -> dict[str, Any]:
    """A model for JSON: all but its weights."""
    return record.model_dump(mode="json", exclude={"v", "weights"}, exclude_none=True)


def _bytes(record: ModelRecord) -> int:
    return sum(file.bytes for file in record.card.files)
