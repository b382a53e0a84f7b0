"""The model of a planning command: a registered one, or a file that is measured at first use and kept in a cache."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Final

from splitbus_cli.progress import progress_bar
from splitbus_cli.registry import open_gateway_registry
from splitbus_gateway.config import GatewayConfig
from splitbus_gateway.facts import ModelFacts
from splitbus_gateway.graph import load_graph
from splitbus_gateway.local_profile import profile_here
from splitbus_gateway.profile_file import ProfileFile
from splitbus_gateway.records import ModelRecord
from splitbus_gateway.registry import Registry
from splitbus_runtime.agent import default_store
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import NodeProfile

MAX_KEPT: Final = 16
"""Models in the cache; the one that was measured first gives way."""

FRESH_SECONDS: Final = 3600.0
"""So long a profile of this machine is taken as it was."""


@dataclass(frozen=True)
class PlannedModel:
    """A model as the planner needs it; `here` times it on this machine, once however often it is called."""

    facts: ModelFacts
    here: Callable[[], NodeProfile]


def find_model(model: str, config: GatewayConfig, samples: Path | None) -> PlannedModel:
    """A file, or a model that the configuration's registry has by that name.

    What a file's cuts carry is measured at first use. Raises ModelError, ConfigError.
    """
    path = Path(model)
    if path.suffix == ".onnx" or path.is_file():
        kept = config.model_copy(update={"state_dir": default_store("planned")})
        registry = open_gateway_registry(kept)
        record = _measured(registry, path, samples)
        facts = replace(record.facts(config.planner.codecs, proven=config.planner.proven), name=path.stem)
    elif samples is not None:
        raise ConfigError(f"--samples are for a model given as a file; {model} was measured when it was registered")
    else:
        registry = open_gateway_registry(config)
        record = registry.get(model)
        facts = record.facts(config.planner.codecs, proven=config.planner.proven)
    return PlannedModel(facts, cache(partial(_here, registry, record.model)))


def _measured(registry: Registry, path: Path, samples: Path | None) -> ModelRecord:
    """The file's record in the cache."""
    name = f"m{model_key(load_graph(path).sha256)}"
    kept = sorted((record for record in registry.list() if record.name != name), key=lambda record: record.added)
    for record in kept[: max(0, len(kept) + 1 - MAX_KEPT)]:
        registry.remove(record.name)
    with progress_bar() as progress:
        task = progress.add_task(f"reading {path.name}", total=None)
        registry.add(
            name,
            path,
            samples,
            progress=lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
        )
    return registry.get(name)


def _here(registry: Registry, model: str) -> NodeProfile:
    """The model's blocks on this machine, on one thread as the coded sizes; not timed again within the hour."""
    kept = default_store("planned") / "here" / f"{model_key(model)}.json"
    if kept.is_file() and time.time() - kept.stat().st_mtime < FRESH_SECONDS:
        with contextlib.suppress(ConfigError):
            return ProfileFile.load(kept, model=model).profile
    graph = registry.graph(model)
    with progress_bar() as progress:
        task = progress.add_task(f"timing {graph.path.name} on this machine", total=None)
        found = profile_here(
            graph, threads=1, progress=lambda told: progress.update(task, completed=told.done, total=told.total)
        )
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(found.to_json())
    return found.profile
