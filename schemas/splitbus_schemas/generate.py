"""Writes what is made from the registries: `python -m splitbus_schemas.generate [--check]`, in a checkout."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from splitbus_schemas.acl import acl
from splitbus_schemas.asyncapi import document
from splitbus_schemas.bridging import example_bridge, example_rules
from splitbus_schemas.limits import WIRE_VERSION
from splitbus_schemas.tables import readme, topics_page
from splitbus_schemas.topics import TOPICS

ROOT: Final = Path(__file__).parents[2]
HEADING: Final = "# Made from splitbus_schemas/topics.py by `python -m splitbus_schemas.generate`; do not edit.\n"


def generated(root: Path) -> dict[Path, str]:
    """What the generated files of a checkout should hold."""
    examples = _examples(root)
    page = root / "schemas" / "README.md"
    return {
        root / "schemas" / "asyncapi.yaml": HEADING + _yaml(document(examples)),
        root / "mosquitto" / "acl": acl(),
        root / "mosquitto" / "bridge-gateways.conf": example_bridge(),
        root / "mosquitto" / "bridge-gateways.acl": example_rules(),
        root / "docs" / "topics.md": topics_page(examples),
        page: readme(page.read_text(encoding="utf-8")),
    }


def stale(root: Path) -> list[Path]:
    """The generated files that differ from what they should hold."""
    return [path for path, text in generated(root).items() if not path.exists() or path.read_text("utf-8") != text]


def _examples(root: Path) -> Mapping[str, Any]:
    """A message for each readable topic, from the golden vectors."""
    golden = root / "schemas" / "golden" / f"v{WIRE_VERSION}"
    names = [topic.name for topic in TOPICS if topic.message is not None]
    return {name: json.loads((golden / f"message-{name}.json").read_bytes()) for name in names}


def _yaml(value: Any) -> str:
    import yaml  # noqa: PLC0415 - nodes have no yaml; only this program needs it

    class Dumper(yaml.SafeDumper):
        """Without anchors: the same value twice stands there twice."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's signature
            return True

    return str(yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120))


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check name those that differ. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m splitbus_schemas.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: the one this file is in)")
    options = parser.parse_args(arguments)
    differing = stale(options.root)
    for path in differing:
        name = path.relative_to(options.root)
        if options.check:
            sys.stderr.write(f"{name} is out of date: run `python -m splitbus_schemas.generate`\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(generated(options.root)[path], encoding="utf-8")
            sys.stdout.write(f"wrote {name}\n")
    return 1 if differing and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
