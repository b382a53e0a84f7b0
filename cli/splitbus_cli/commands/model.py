"""`splitbus model add|list|table|export|remove`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from splitbus_cli.commands.daemons import ConfigFile
from splitbus_cli.options import AsJson

app = typer.Typer(no_args_is_help=True, help="Register, list, look at, export and remove a gateway's models.")

StateDir = Annotated[
    Path | None, typer.Option("--state-dir", metavar="DIR", envvar="SPLITBUS_STATE_DIR", help="The gateway's folder.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name that devices may use.")]


@app.command()
def add(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The ONNX model.")],
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Real inputs to measure on: .npz or .npy, a folder of them, or, for an input that takes frames, "
            "a folder of pictures (their largest centred part of the input's proportions is scaled to its size).",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Real inputs, as --samples, from which the transform codecs t1 to t12 are found, 16 at least; without "
            "--samples, one half is for that, and everything is measured on the other.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|folders",
            help="The right classes, so that accuracy is measured beside agreement: a .csv with rows of picture and "
            "class index, an .npy with an index for each sample, or the word folders, where each picture lies in a "
            "folder that is its class.",
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Your own test of whether answers are the same, for detectors and others: called with the outputs by "
            "name of the un-split model and of the split one, for each sample; returns True or False.",
        ),
    ] = None,
    image_input: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT", help="Make this input take frames: uint8 RGB [H, W, 3], so that JPEG and WebP apply."
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="Subtracted from pixels times scale: 0 to 1 with scale 1/255. (default: 0)"),
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Divided by, in the same units as the mean. (default: 1)")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="1/255|1", help="Pixels are multiplied by this first. (default: 1/255)")
    ] = None,
    layout: Annotated[
        Literal["NHWC", "NCHW"] | None, typer.Option(help="The model's. (default: as the input's shape says)")
    ] = None,
    color: Annotated[
        Literal["rgb", "bgr"] | None,
        typer.Option(help="The model's order of channels, also of mean and std; frames are RGB. (default: rgb)"),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Of frames, where the model leaves their size open.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let the name stand for this model from now on.")] = False,
    config: ConfigFile = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Register a model: copy it, find its cuts, measure what crosses them.

    Example: splitbus model add person person.onnx --samples frames.npz
    """
    from splitbus_cli import models

    image = models.ImageOptions(image_input, mean, std, scale, layout, color, size).read()
    judge = models.load_judge(labels, measure)
    registry = models.open_registry(config, state_dir)
    models.add(registry, name, file, samples, image, judge, calibrate=calibrate, replace=replace, as_json=as_json)


@app.command("list")
def show(config: ConfigFile = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List the registered models.

    Example: splitbus model list --state-dir /var/lib/splitbus
    """
    from splitbus_cli import models

    models.show(models.open_registry(config, state_dir), as_json=as_json)


@app.command()
def table(
    name: Name,
    cut: Annotated[int | None, typer.Option(metavar="N", help="Every codec at this cut.")] = None,
    min_agreement: Annotated[
        float, typer.Option(metavar="X", min=0, max=1, help="Of the codecs shown where no cut is named.")
    ] = 0.98,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw bytes against agreement: .png, .svg or .pdf.")
    ] = None,
    config: ConfigFile = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what codecs make of a model's cuts: bytes, agreement, times, as measured when it was added.

    Example: splitbus model table person --cut 21
    """
    from splitbus_cli import model_table, models

    record = models.open_registry(config, state_dir).get(name)
    model_table.show(record, cut=cut, min_agreement=min_agreement, out=out, as_json=as_json)


@app.command()
def export(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    replace: Annotated[bool, typer.Option("--replace", help="Write over files that are there.")] = False,
    config: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Write a registered model as a file, for a camera that opens it by path.

    Example: splitbus model export person person-frames.onnx
    """
    from splitbus_cli import models

    models.export(models.open_registry(config, state_dir), name, file, replace=replace)


@app.command()
def remove(name: Name, config: ConfigFile = None, state_dir: StateDir = None) -> None:
    """Forget a model; devices that run it go on alone.

    Example: splitbus model remove person
    """
    from splitbus_cli import models

    models.remove(models.open_registry(config, state_dir), name)
