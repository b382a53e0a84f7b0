"""`splitbus model`: registers, lists and removes models in a gateway's state folder, the daemon running or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from splitbus_cli.layers import layered
from splitbus_cli.progress import progress_bar
from splitbus_cli.registry import open_gateway_registry
from splitbus_cli.tables import add_row, new_table
from splitbus_cli.text import milliseconds, shape, size
from splitbus_gateway.config import GatewayConfig, load_config
from splitbus_gateway.graph import load_feed
from splitbus_gateway.records import ModelRecord
from splitbus_gateway.registry import Registry
from splitbus_schemas.errors import ModelError


def open_registry(config: Path | None, state_dir: Path | None) -> Registry:
    """The registry of the gateway with that configuration file or state folder. Raises ConfigError."""
    return open_gateway_registry(layered(GatewayConfig, load_config, config, {"state_dir": state_dir}))


def add(registry: Registry, name: str, path: Path, samples: Path | None, *, replace: bool, as_json: bool) -> None:
    """Register a model and print what came of it. Raises ModelError, ConfigError."""
    with progress_bar() as progress:
        task = progress.add_task("measuring coded sizes at every cut", total=None)
        registry.add(
            name,
            path,
            _samples(samples),
            replace=replace,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
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
    if whole:
        print(f"served whole: {whole}")
    if record.samples == "synthetic":
        print("give real inputs with --samples: coded sizes and the codecs' agreement depend on them")


def _samples(source: Path | None) -> Path | Sequence[Any] | None:
    """A file as it is; the arrays and feeds of a folder of .npy and .npz files."""
    if source is None or not source.is_dir():
        return source
    files = sorted(path for path in source.iterdir() if path.suffix in {".npy", ".npz"})
    if not files:
        raise ModelError(f"{source} holds no .npy or .npz file: write inputs with numpy.save or numpy.savez")
    return [_array(path) if path.suffix == ".npy" else load_feed(path) for path in files]


def _array(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path} is not an .npy file: write one with numpy.save") from error


def show(registry: Registry, *, as_json: bool) -> None:
    """Print the registered models."""
    records = registry.list()
    if as_json:
        print(json.dumps([facts(record) for record in records], indent=2))
        return
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
