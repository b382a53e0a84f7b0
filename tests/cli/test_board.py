"""What is known of a site, and how it is shown: pure."""

from __future__ import annotations

from rich.console import Console, RenderableType
from tests.packets import LINK, MESSAGES, MODEL, STEPS

from splitbus_cli.board import Board, filters
from splitbus_cli.explain import facts, stages_beside, text
from splitbus_cli.rows import link_rows, node_rows, snapshot, stream_rows
from splitbus_cli.top import links_table, nodes_table, streams_table
from splitbus_runtime.bus import Delivery
from splitbus_schemas import topics
from splitbus_schemas.messages import Decision, Message, Step

KEY = MODEL[:16]
SITE_MESSAGES: dict[str, Message] = {
    topics.STATUS.at("home", node="edge1"): MESSAGES["status"],
    topics.STATS.at("home", node="edge1"): MESSAGES["stats"],
    topics.LINK.at("home", node="cam1", peer="edge1"): LINK,
    topics.MODEL.at("home", name="person"): MESSAGES["model"],
    topics.PLAN.at("home", node="cam1", model=KEY): MESSAGES["plan"],
    topics.PLAN_STATE.at("home", node="cam1", model=KEY): MESSAGES["plan-state"],
    topics.STREAM.at("home", node="cam1", model=KEY): MESSAGES["stream"],
    topics.DECISION.at("home", node="cam1", model=KEY): MESSAGES["decision"],
    topics.ALERT.at("home", node="edge1"): MESSAGES["alert"],
}


def board(changes: dict[str, Message] | None = None) -> Board:
    result = Board()
    for topic, message in (SITE_MESSAGES | (changes or {})).items():
        result.apply(Delivery(topic, message.to_json(), retain=True))
    return result


def shown(table: RenderableType) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_filters_are_of_the_site_alone() -> None:
    assert "splitbus/v1/home/node/+/link/+" in filters("home")
    assert all(pattern.startswith("splitbus/v1/home/") for pattern in filters("home"))


def test_nodes() -> None:
    (row,) = node_rows(board())
    assert (row["node"], row["tier"], row["state"], row["busy"], row["queued"]) == ("edge1", "edge", "ready", 0.31, 1)
    assert "31%" in shown(nodes_table([row]))


def test_a_worker_that_calls_itself_slow() -> None:
    slow = MESSAGES["status"].model_copy(update={"pace": 9.3})
    (row,) = node_rows(board({topics.STATUS.at("home", node="edge1"): slow}))
    assert row["pace"] == 9.3
    assert "ready: 9.3 times slower than usual" in shown(nodes_table([row]))
    assert "slower" not in shown(nodes_table(node_rows(board())))


def test_a_lost_node_has_no_load() -> None:
    (row,) = node_rows(board({topics.STATUS.at("home", node="edge1"): MESSAGES["status-lost"]}))
    assert row["state"] == "lost"
    assert "busy" not in row
    assert "lost" in shown(nodes_table([row]))


def test_links() -> None:
    (row,) = link_rows(board())
    assert (row["node"], row["peer"], row["rtt_ms"], row["up_mbit"]) == ("cam1", "edge1", 3.1, 19.4)
    assert "93%" in shown(links_table([row]))


def test_streams() -> None:
    (row,) = stream_rows(board())
    assert (row["device"], row["model"], row["plan"], row["state"]) == ("cam1", "person", "p12", "active")
    assert (row["cuts"], row["route"], row["frames_route"]) == ("17/q8", "cam1 > edge1", "cam1>edge1")
    assert (row["fps"], row["p50_ms"], row["predicted_ms"]) == (24.0, 31.9, 31.2)
    printed = shown(streams_table([row]))
    assert all(part in printed for part in ("17/q8", "24.0", "31.9", "44.2"))


def test_a_device_that_has_not_seen_its_plan() -> None:
    newer = MESSAGES["plan"].model_copy(update={"epoch": 13})
    (row,) = stream_rows(board({topics.PLAN.at("home", node="cam1", model=KEY): newer}))
    assert row["state"] == "not yet seen"


def test_removed_and_broken_messages() -> None:
    known = board()
    known.apply(Delivery(topics.LINK.at("home", node="cam1", peer="edge1"), b""))
    known.apply(Delivery(topics.LINK.at("home", node="cam1", peer="edge2"), b"{"))
    known.apply(Delivery("elsewhere", b"?"))
    assert link_rows(known) == []
    assert snapshot(known)["broken_messages"] == 2


def test_alerts_are_bounded() -> None:
    known = board()
    for _ in range(100):
        known.apply(Delivery(topics.ALERT.at("home", node="edge1"), MESSAGES["alert"].to_json()))
    assert len(snapshot(known)["alerts"]) == 8


def test_markup_from_the_wire_is_text() -> None:
    evil = MESSAGES["status"].model_copy(update={"reason": "[bold]\x1b[2J"})
    (row,) = node_rows(board({topics.STATUS.at("home", node="edge1"): evil}))
    printed = shown(nodes_table([row]))
    assert "[bold]" in printed
    assert "\x1b" not in printed


def test_stages_beside() -> None:
    measured = [
        Step(what="run", where="cam1", ms=20.0),
        Step(what="run", where="cam1", ms=1.0),
        Step(what="queue", where="edge1", ms=0.5),
    ]
    rows = stages_beside(STEPS, measured)
    # Quantising is predicted as encoding and measured as running: the node's sums tell the truth.
    assert rows[0] == {
        "what": "compute", "where": "cam1", "predicted_ms": 19.3, "measured_ms": 21.0, "ratio": 1.088
    }  # fmt: skip
    assert rows[1]["where"] == "cam1>edge1"
    assert rows[-1] == {
        "what": "queue", "where": "edge1", "predicted_ms": None, "measured_ms": 0.5, "ratio": None
    }  # fmt: skip


def test_explain() -> None:
    known = board()
    decision = MESSAGES["decision"]
    assert isinstance(decision, Decision)
    told = text(known, ("cam1", KEY), decision)
    for part in (
        "cam1 runs person by plan p12, epoch 12, active",
        "why: the link cam1>edge1 rose to 19.4 Mbit/s",
        "chosen: cut 17 q8 > edge1: 31.2 ms predicted, measured 31.9 ms (p50)",
        "next best: all on cam1: 46.0 ms predicted, 14.8 ms slower",
        "link cam1>edge1: round trip 3.10 ms, up 19.4 Mbit/s",
        "left out: cloud1: no profile yet",
    ):
        assert part in told
    found = facts(known, ("cam1", KEY), decision)
    assert found["measured_p50_ms"] == 31.9
    assert all(row["ratio"] in (None, 1.0) for row in found["stages"])


def test_explain_does_not_compare_with_another_plan() -> None:
    known = board(
        {topics.STREAM.at("home", node="cam1", model=KEY): MESSAGES["stream"].model_copy(update={"epoch": 11})}
    )
    decision = MESSAGES["decision"]
    assert isinstance(decision, Decision)
    assert facts(known, ("cam1", KEY), decision)["measured_p50_ms"] is None
