"""Options that the planning commands share: what is known of model, nodes and links, and what is wanted of a plan."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from splitbus_cli.options import Command

Place = Literal["device", "site"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The question as typed; None and empty where nothing was said."""

    profile: list[str] | None = None
    link: list[str] | None = None
    from_bus: str | None = None
    samples: Path | None = None
    config: Path | None = None
    state_dir: Path | None = None
    objective: str | None = None
    deadline: float | None = None
    min_agreement: float | None = None
    codec: list[str] | None = None
    keep_input_on: Place | None = None
    keep_blocks_on_device: int = 0
    keep_blocks_on_site: int = 0
    max_rebuilt: float | None = None
    device_memory: float | None = None
    max_mbit: float | None = None
    max_mb_per_day: float | None = None
    fps: float | None = None
    must_run: list[str] | None = None
    must_not_run: list[str] | None = None


def _known(flag: str, text: str, metavar: str, **more: Any) -> Any:
    return typer.Option(flag, help=text, metavar=metavar, rich_help_panel="What is known", **more)


def _wanted(flag: str, text: str, metavar: str, **more: Any) -> Any:
    return typer.Option(flag, help=text, metavar=metavar, rich_help_panel="What is wanted", **more)


_OPTIONS: Final[dict[str, Any]] = {
    "profile": Annotated[
        list[str] | None,
        _known(
            "--profile",
            "A node and its profile, written by splitbus profile MODEL --json, or this machine's times so much: "
            "device=a.json, edge1=2x, box:cloud=b.json. Names begin with their tier, or name it. Again for more.",
            "NAME[:TIER]=FILE|Nx",
        ),
    ],
    "link": Annotated[
        list[str] | None,
        _known(
            "--link", "device:edge1=20mbit/45ms, or 20/50mbit/45ms for up and down. Again for more.", "A:B=RATE/RTT"
        ),
    ],
    "from_bus": Annotated[
        str | None,
        _known("--from-bus", "Nodes, profiles and links of this device as the site's broker has them.", "ID"),
    ],
    "samples": Annotated[
        Path | None,
        _known("--samples", "Real inputs for a model given as a file, as for splitbus model add.", "FILE|DIR"),
    ],
    "config": Annotated[
        Path | None, _known("--config", "A gateway's settings, TOML: its models, and what its plans keep to.", "FILE")
    ],
    "state_dir": Annotated[
        Path | None,
        _known("--state-dir", "The gateway's folder, of a model by name.", "DIR", envvar="SPLITBUS_STATE_DIR"),
    ],
    "objective": Annotated[
        str | None,
        _wanted(
            "--objective",
            "latency, throughput, bytes or device; or weights of latency, interval, kilobytes, device_ms: "
            "latency=1,kilobytes=0.2. (default: latency)",
            "NAME",
        ),
    ],
    "deadline": Annotated[float | None, _wanted("--deadline", "The latest that an answer may come.", "MS", min=0.0)],
    "min_agreement": Annotated[
        float | None,
        _wanted("--min-agreement", "Least share of answers that stay the same. (default: 0.98)", "X", min=0.0, max=1.0),
    ],
    "codec": Annotated[list[str] | None, _wanted("--codec", "Codecs that may be used; again for more.", "C")],
    "keep_input_on": Annotated[
        Place | None, _wanted("--keep-input-on", "The input never leaves the device, or the site.", "device|site")
    ],
    "keep_blocks_on_device": Annotated[
        int, _wanted("--keep-blocks-on-device", "The first K blocks run on the device.", "K", min=0)
    ],
    "keep_blocks_on_site": Annotated[
        int, _wanted("--keep-blocks-on-site", "The first K blocks never run in the cloud.", "K", min=0)
    ],
    "max_rebuilt": Annotated[
        float | None,
        _wanted(
            "--max-rebuilt",
            "How alike (SSIM) to a picture may be what is rebuilt from what leaves the device; needs a model that was "
            "added with --calibrate.",
            "X",
            min=0.0,
            max=1.0,
        ),
    ],
    "device_memory": Annotated[
        float | None, _wanted("--device-memory", "What the device's slice may take in memory.", "MB", min=0.0)
    ],
    "max_mbit": Annotated[
        float | None, _wanted("--max-mbit", "What the device may send and receive on average.", "R", min=0.0)
    ],
    "max_mb_per_day": Annotated[float | None, _wanted("--max-mb-per-day", "The same over a day.", "MB", min=0.0)],
    "fps": Annotated[
        float | None,
        _wanted(
            "--fps", "Frames a second: ways are to keep up, limits over time to hold, replays to run.", "N", min=1e-6
        ),
    ],
    "must_run": Annotated[
        list[str] | None, _wanted("--must-run", "A node or tier that takes part; again for more.", "NAME")
    ],
    "must_not_run": Annotated[
        list[str] | None, _wanted("--must-not-run", "A node or tier that does not; again for more.", "NAME")
    ],
}

Model = Annotated[str, typer.Argument(metavar="MODEL", help="An .onnx file, or the name of a registered model.")]


def takes_question(command: Command) -> Command:
    """`command` with the shared options in place of its parameter `asked`."""
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "asked"]
    defaults = {field.name: field.default for field in fields(Asked)}
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
        for name, annotation in _OPTIONS.items()
    ]
    parameters = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *shared]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        asked = Asked(**{name: values.pop(name) for name in _OPTIONS})
        command(asked=asked, **values)

    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run
