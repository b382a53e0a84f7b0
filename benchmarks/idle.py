"""What staying current costs while no frame comes: links probed, load reported, profiles kept, plans looked at again.

    .venv/bin/python benchmarks/idle.py [--models DIR] [--json FILE] [--seconds 30] [--fps 5]

A site of processes as in `prediction.py`; once the camera has a plan, the CPU time of each is counted. Then frames come
and what camera and workers say that they spend on timing blocks anew is counted, opening and all (`idle.blocks.`).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from _report import Figure, parser, report
from _site import CLOUD, EDGE, SITE, Camera, Site, open_site
from _ways import NO_MODEL, models_of, registered, settle

from splitbus_demo.line import Link
from splitbus_schemas import messages as m
from splitbus_schemas import topics

LINE = Link(20, 20, 22)
MODEL = "efficientnet-lite0"
PROFILE_S = 10.0
"""The first plan does not wait for the rest of a profile; what staying current costs begins behind it."""
SETTLING_S = 3.0
COUNTERS = ("blocks_us", "blocks_timed", "blocks_moved", "blocks_given_up")
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=30.0, help="how long is counted (default: 30)")
    options.add_argument("--fps", type=float, default=5.0, help="of the frames that come then (default: 5)")
    options.add_argument("--only", metavar="NAME", default=MODEL, help=f"the model (default: {MODEL})")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        models = models_of(chosen.models, Path(scratch), [chosen.only])
        if not models:
            print(NO_MODEL, file=sys.stderr)
            return 1
        ((name, path),) = models.items()
        with open_site(LINE) as site:
            card = registered(site, models, [], lambda _: None)[name]
            with site.camera(card, path, slowdown=1.0) as camera:
                settle(camera)
                time.sleep(PROFILE_S)
                nodes = {"camera": camera.pid, **{node: site.processes[node].pid for node in (EDGE, CLOUD, "gateway")}}
                before = {node: cpu_seconds(pid) for node, pid in nodes.items()}
                begun = time.monotonic()
                time.sleep(chosen.seconds)
                passed = time.monotonic() - begun
                shares = {node: (cpu_seconds(pid) - before[node]) / passed for node, pid in nodes.items()}
                blocks = _blocks(site, camera, chosen.fps, chosen.seconds)
    detail = f"over {chosen.seconds:g} s without a frame; goal 0.01"
    figures = [Figure(f"idle.{node}", share, "cores", detail) for node, share in shares.items()]
    report("Staying current", [*figures, *blocks], chosen.json)
    return 0


def _blocks(site: Site, camera: Camera, fps: float, seconds: float) -> list[Figure]:
    """What refreshing the profiles took on the nodes that frames run on, by their own counters."""

    def counters(node: str) -> dict[str, int]:
        stats = site.watch.newest(m.NodeStats, topics.STATS.at(SITE, node=node))
        return stats.counters if stats else {}

    nodes = {"camera": camera.device, EDGE: EDGE, CLOUD: CLOUD}
    camera.play(fps)
    time.sleep(SETTLING_S)
    before = {name: counters(node) for name, node in nodes.items()}
    time.sleep(seconds)
    after = {name: counters(node) for name, node in nodes.items()}
    camera.stop()
    found = []
    for name in nodes:
        grown = {what: after[name].get(what, 0) - before[name].get(what, 0) for what in COUNTERS}
        told = (
            f"{grown['blocks_timed']} blocks timed, {grown['blocks_moved']} moved, {grown['blocks_given_up']} given up"
        )
        detail = f"{told}, over {seconds:g} s at {fps:g} frames a second; on the wall"
        found.append(Figure(f"idle.blocks.{name}", grown["blocks_us"] / 1e6 / seconds, "cores", detail))
    return found


def cpu_seconds(session: int) -> float:
    """CPU time of all processes of a session so far; those that ended are not in it."""
    return (
        sum(ticks for entry in Path("/proc").iterdir() if entry.name.isdecimal() for ticks in _ticks(entry, session))
        / TICKS
    )


def _ticks(process: Path, session: int) -> list[int]:
    try:
        fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:  # it ended
        return []
    return [int(fields[11]), int(fields[12])] if int(fields[3]) == session else []


if __name__ == "__main__":
    sys.exit(main())
