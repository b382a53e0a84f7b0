"""`splitbus codec encode|decode|calibration`."""
# ruff: noqa: PLC0415 - commands import what they need: --help stays quick, a missing extra stops only its command

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitbus_cli.commands.daemons import ConfigFile
from splitbus_cli.commands.model import Name, StateDir
from splitbus_cli.options import AsJson

app = typer.Typer(no_args_is_help=True, help="Code a cut's tensors into a file and back, as packets carry them.")

Calibration = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What t1 to t12 need: splitbus codec calibration writes it; the same both ways."),
]


@app.command()
def encode(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Tensors by name, .npz, or .npy for one.")],
    codec: Annotated[
        str,
        typer.Option(
            "--codec",
            metavar="CODEC",
            help="raw and zstd lose nothing; f16, q8, q4 quantise; t1 (safest) to t12 (smallest) need --calibration; "
            "jpeg75, webp50 and others are for pictures.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it: NAME.sbp.")],
    calibration: Calibration = None,
    tensor: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The name of an .npy's tensor. (default: the one calibrated, or x)"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Code tensors under a codec into a file that says what it holds.

    Example: splitbus codec encode activation.npz --codec t8 --calibration person.npz --out activation.sbp
    """
    from splitbus_cli import codec_files

    codec_files.encode(file, codec, out, calibration=calibration, tensor=tensor, as_json=as_json)


@app.command()
def decode(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What encode wrote.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the tensors: .npz, or .npy for one.")],
    calibration: Calibration = None,
    as_json: AsJson = False,
) -> None:
    """Make tensors again of a coded file; it needs neither the model nor what encoded it.

    Example: splitbus codec decode activation.sbp --calibration person.npz --out activation.npz
    """
    from splitbus_cli import codec_files

    codec_files.decode(file, out, calibration=calibration, as_json=as_json)


@app.command()
def calibration(
    name: Name,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it: .npz.")],
    config: ConfigFile = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Write what was calibrated of a registered model's tensors, for encode and decode on any machine.

    Example: splitbus codec calibration person person.npz
    """
    from splitbus_cli import codec_files, models

    codec_files.export(models.open_registry(config, state_dir), name, out, as_json=as_json)
