"""Workers killed with kill -9 in mid-stream: another one serves at once, and the best plan is back soon after them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.brokers import Broker
from tests.faults.plant import CAMERA, CLOUD, EDGE, Plant, plant
from tests.faults.record import Record, runs

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

RESCUE_S = 0.5
"""From the dead one's will to an answer of another worker."""

REPAIR_S = 2.0
"""From the moment that it says it is ready to an answer by it."""

OTHER = {EDGE: CLOUD, CLOUD: EDGE}


def death(site: Plant, victim: str) -> tuple[float, float]:
    """Kill it once; seconds from its will to another's answer, and from its readiness to an answer by it."""
    other = OTHER[victim]
    site.steady((CAMERA, victim))
    site.pause(0.0, 0.3)
    died = site.strike(victim)
    rescued = site.answered(f"{other} answers", died, lambda one: one.route == (CAMERA, other), 20)
    will = site.log_of_frames.wait("its will", lambda: site.witness.status(victim, "lost", died), 5)
    ready = site.log_of_frames.wait("it is back", lambda: site.witness.status(victim, "ready", will), 20, site.tale)
    best = site.answered("the best plan is back", ready, lambda one: one.route == (CAMERA, victim), 60)
    return rescued.at - will, best.at - ready


@pytest.mark.parametrize("victim", OTHER)
def test_a_worker_is_killed(broker: Broker, tmp_path: Path, seed: int, record: Record, victim: str) -> None:
    with plant(broker, tmp_path, seed, best=victim) as site:
        times = [death(site, victim) for _ in range(runs())]
        tally = site.judge()
        rescues, repairs = ([pair[which] * 1e3 for pair in times] for which in (0, 1))
        record(
            f"{victim} killed", len(times), rescues, tally.frames, tally.lost, tally.doubled, tally.late,
            f"will to {OTHER[victim]}'s answer; its return to its first answer: worst {max(repairs):.0f} ms",
        )  # fmt: skip
        assert (tally.wrong, tally.lost, tally.doubled, tally.late) == (0, 0, 0, 0)
        assert max(rescues) <= RESCUE_S * 1e3
        assert max(repairs) <= REPAIR_S * 1e3
        assert site.starts[victim] == 1 + len(times)
        assert {node: count for node, count in site.starts.items() if node != victim and count > 1} == {}
