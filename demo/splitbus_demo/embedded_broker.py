"""Runs the embedded broker in this process: `python -m splitbus_demo.embedded_broker CONFIG.toml`."""

from __future__ import annotations

import logging
import sys

from iotcore import Broker


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # rumqttd wraps the routing of every message in an error span, and each would be a line
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    Broker(config_path=sys.argv[1]).run_forever()


if __name__ == "__main__":
    main()
