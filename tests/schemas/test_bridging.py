"""What crosses the bridge of a site with a gateway on each side: everything that has to, and each topic once."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.broker_setup import PRODUCTION

from splitbus_runtime.bus import matches
from splitbus_schemas.bridging import EXAMPLE, Side, bridge_lines, bridge_rules, crossings
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.messages import Lease
from splitbus_schemas.topics import BEYOND, TOPICS

SITE = "home"
NEAR, FAR = EXAMPLE["near"], EXAMPLE["far"]
UPTIME = BEYOND.at(SITE, bridge="bridge-home")

TOLD = ("status", "caps", "stats", "health", "alert", "slices", "profile", "link", "plan-state", "stream", "blob-get")
"""What a node tells crosses from its side."""
GIVEN = ("job", "reply", "blob-data")
"""What it is given crosses to its side."""
LED = ("plan", "decision", "work", "peers", "model", "keys", "lease")
"""What the leader says crosses both ways."""


def test_a_lease_may_name_its_side() -> None:
    """WIRE-74: without one it reads as before."""
    facts = {"term": 3001, "node": "gateway", "boot": "b", "serial": 1, "state": "held", "seconds": 3.0}
    plain, sided = Lease.model_validate(facts), Lease.model_validate(facts | {"side": "edge"})
    assert b"side" not in plain.to_json()
    assert (Lease.from_json(plain.to_json()).side, Lease.from_json(sided.to_json()).side) == (None, "edge")


def test_every_topic_of_every_node_crosses_as_it_should_and_no_more() -> None:
    """WIRE-75: by the registry; the uptime is carried by lines of its own."""
    found = [*crossings(NEAR, FAR, SITE)]
    for kind in TOPICS:
        for side, out in ((NEAR, "out"), (FAR, "in")):
            for node in side.nodes:
                topic = kind.at(SITE, **dict.fromkeys(kind.fields, "x") | {"node": node})
                ways = [one.way for one in found if matches(one.filter, topic)]
                assert ways == list(expected(kind.name, node, side, out)), topic


def expected(kind: str, node: str, side: Side, out: str) -> Iterator[str]:
    back = {"out": "in", "in": "out"}[out]
    gateway, worker = node in side.gateways, node in side.workers
    if kind in LED:
        yield "both"
    elif kind == "pin":
        yield "out"
    elif kind in TOLD and not (gateway and kind == "blob-get"):
        yield out
    elif kind in GIVEN and not gateway and (worker or kind != "job"):
        yield back


def test_no_two_lines_carry_the_same_topic() -> None:
    filters = [one.filter for one in crossings(NEAR, FAR, SITE)]
    assert not [pair for pair in itertools.permutations(filters, 2) if matches(pair[0], pair[1])]


def test_a_node_on_both_sides_is_refused() -> None:
    with pytest.raises(ConfigError, match="edge1 is named on both sides"):
        bridge_lines(NEAR, Side(workers=["edge1"]), site=SITE, name="b")
    with pytest.raises(ConfigError):
        bridge_rules(NEAR, Side(workers=["edge 1"]), site=SITE, name="b")


def test_the_rights_are_those_of_the_lines() -> None:
    conf, rules = (
        (PRODUCTION / name).read_text().splitlines() for name in ("bridge-gateways.conf", "bridge-gateways.acl")
    )
    access = {"in": "read", "out": "write", "both": "readwrite"}
    lines = [line.split() for line in conf if line.startswith("topic splitbus")]
    granted = {line for line in rules if line.startswith("topic ") and "$SYS" not in line}
    uptime = f"topic write {UPTIME}"
    assert granted == {f"topic {access[way]} {filter_}" for _, filter_, way, _ in lines} | {uptime}


def test_the_example_in_the_broker_page_makes_the_shipped_lines() -> None:
    """Run as it stands there; its names are the shipped files'."""
    example = (PRODUCTION / "README.md").read_text().partition("python - <<'END'\n")[2].partition("\nEND\n")[0]
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("topic ", "user "))]
    shipped = [
        line
        for name in ("bridge-gateways.conf", "bridge-gateways.acl")
        for line in (PRODUCTION / name).read_text().splitlines()
        if line.startswith(("topic ", "user "))
    ]
    assert lines == shipped
