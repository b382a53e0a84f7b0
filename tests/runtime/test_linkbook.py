"""Links kept measured: probes when idle, losses noticed, reports when something moved, and bounds."""

from __future__ import annotations

import pytest

from splitbus_runtime.bus import Delivery, MemoryBroker
from splitbus_runtime.linkbook import IDLE_SECONDS, MAX_LINKS, PROBE_LOST_SECONDS, TELL_SECONDS, LinkBook
from splitbus_runtime.transport import PacketPort, Parcel
from splitbus_schemas.messages import LinkReport
from splitbus_schemas.packet_types import Echo, Probe
from splitbus_schemas.topics import JOB, LINK, REPLY

START = 100.0


class Pair:
    """Node a with its book, and what it sends to its peer b and publishes."""

    def __init__(self) -> None:
        broker = MemoryBroker()
        bus = broker.connect()
        self.port = PacketPort(bus, lambda _topic, _error: None)
        self.book = LinkBook(self.port, bus, site="t", node="a", boot="b1")
        self.probes: list[Probe] = []
        self.echoes: list[Parcel] = []
        self.reports: list[LinkReport] = []
        peer = PacketPort(broker.connect(), lambda _topic, _error: None)
        peer.receive(JOB.at("t", node="b", device="a"), self._keep)
        peer.receive(REPLY.at("t", node="c", boot="b9"), self.echoes.append)
        broker.connect().subscribe(LINK.at("t", node="a", peer="+"), self._report)

    def _keep(self, parcel: Parcel) -> None:
        assert isinstance(parcel.packet, Probe)
        self.probes.append(parcel.packet)

    def _report(self, delivery: Delivery) -> None:
        self.reports.append(LinkReport.from_json(delivery.payload))

    def echo(self, at: float, *, node: str = "b", train_s: float = 0.01, held_us: int = 1000) -> None:
        echo = Echo(self.probes[-1].id, node, held_us, 30_000, 20_000)
        self.book.take_echo(echo, Parcel("t", echo, at, 9000, 8000, train_s))


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.book.set_peers(frozenset({"b"}))
    return pair


def test_an_unknown_link_is_probed_once_at_a_time(pair: Pair) -> None:
    pair.book.tick(START)
    pair.book.tick(START + 0.25)
    assert len(pair.probes) == 1
    assert len(pair.probes[0].pad) >= 16_000
    assert pair.probes[0].reply_to == REPLY.at("t", node="a", boot="b1")


def test_an_echo_gives_rates_and_the_round_trip_without_them(pair: Pair) -> None:
    pair.book.tick(START)
    pair.echo(START + 0.051)
    link = pair.book.link("b")
    assert link.rtt_s.estimate == pytest.approx(0.051 - 0.02 - 0.01 - 0.001)
    assert link.up_mbit.estimate == pytest.approx(30_000 * 8 / 0.02 / 1e6)
    assert link.down_mbit.estimate == pytest.approx(8000 * 8 / 0.01 / 1e6)
    assert link.source == "probe"


def test_a_measured_link_is_left_in_peace(pair: Pair) -> None:
    pair.book.tick(START)
    pair.echo(START)
    pair.book.tick(START + IDLE_SECONDS / 2)
    assert len(pair.probes) == 1
    pair.book.tick(START + IDLE_SECONDS + 0.1)
    assert len(pair.probes) == 2


def test_a_suspect_is_probed_at_once(pair: Pair) -> None:
    pair.book.tick(START)
    pair.echo(START)
    pair.book.suspect("b")
    pair.book.tick(START + 0.25)
    assert len(pair.probes) == 2


def echo_of(probe: Probe, at: float) -> tuple[Echo, Parcel]:
    echo = Echo(probe.id, "b", 1000, 30_000, 20_000)
    return echo, Parcel("t", echo, at, 9000, 8000, 0.01)


def test_a_link_is_measured_anew_when_its_peer_has_changed(pair: Pair) -> None:
    """What was measured before counts until the next sample, which comes at once, and stands alone if it is better."""
    for number in range(6):
        pair.book.suspect("b")
        pair.book.tick(START + number)
        pair.echo(START + number + 0.351)
    assert pair.book.link("b").rtt_s.estimate == pytest.approx(0.32)
    pair.book.tick(START + 8)
    probes = len(pair.probes)
    assert probes == 7, "one is under way"
    pair.book.measure_anew("b", START + 8)
    assert pair.book.link("b").rtt_s.estimate == pytest.approx(0.32)
    assert len(pair.probes) == probes + 1
    pair.book.take_echo(*echo_of(pair.probes[-2], START + 8.04))
    assert pair.book.link("b").rtt_s.estimate == pytest.approx(0.32), "it was sent to what the peer was"
    pair.echo(START + 8.051)
    assert pair.book.link("b").rtt_s.estimate == pytest.approx(0.02)
    pair.book.tick(START + 8.25)
    assert pair.reports[-1].rtt_ms == pytest.approx(20.0)
    pair.book.measure_anew("stranger", START + 9)
    assert pair.book.link("stranger").rtt_s.estimate is None


def test_a_link_that_stays_in_doubt_is_probed_less_and_less(pair: Pair) -> None:
    """Frames and probes that measure different things keep each other in doubt, and would fill a slow link."""
    sent: list[float] = []
    for tick in range(400):
        now = START + tick / 20
        pair.book.suspect("b")
        pair.book.tick(now)
        if len(pair.probes) > len(sent):
            sent.append(now)
            pair.echo(now + 0.01)
    assert len(sent) <= 16
    assert sent[3] - sent[0] <= 0.8


def test_a_lost_probe_counts_and_is_followed_by_another(pair: Pair) -> None:
    pair.book.tick(START)
    pair.book.tick(START + PROBE_LOST_SECONDS + 0.1)
    assert len(pair.probes) == 2
    assert pair.book.link("b").lost == 1
    pair.echo(START + PROBE_LOST_SECONDS + 0.2)
    assert pair.book.link("b").report("a", "b", START).loss == 0.5


@pytest.mark.parametrize("node", ["c", "a"])
def test_an_echo_of_somebody_else_teaches_nothing(pair: Pair, node: str) -> None:
    pair.book.tick(START)
    pair.echo(START + 0.1, node=node)
    assert pair.book.link("b").rtt_s.count == 0


def test_an_echo_that_nobody_asked_for_teaches_nothing(pair: Pair) -> None:
    echo = Echo(4711, "b", 0, 30_000, 20_000)
    pair.book.take_echo(echo, Parcel("t", echo, START, 9000, 8000, 0.01))
    assert pair.book.link("b").rtt_s.count == 0


def test_reports_follow_a_change_and_are_rare_without(pair: Pair) -> None:
    for turn in range(8):
        pair.book.note_rtt("b", 0.010, START + turn / 8)
        pair.book.tick(START + turn / 8)
    assert len(pair.reports) <= 2
    for turn in range(8):
        pair.book.note_rtt("b", 0.100, START + 1 + turn / 8)
        pair.book.tick(START + 1 + turn / 8)
    assert pair.reports[-1].rtt_ms == pytest.approx(100)
    assert len(pair.reports) <= 5
    before = len(pair.reports)
    pair.book.tick(START + 2 + 6 * TELL_SECONDS)
    assert len(pair.reports) == before + 1, "it stays alive without samples"


def test_a_step_is_told_with_the_sample_that_shows_it_and_jitter_waits_for_the_tick(pair: Pair) -> None:
    for turn in range(6):
        pair.book.note_up("b", 50_000, 0.01, START + turn / 5)
    pair.book.tick(START + 1.1)
    assert [report.up_mbit for report in pair.reports] == [40.0]
    for seconds, told in ((0.012, 1), (0.05, 1), (0.052, 2), (0.05, 2)):
        pair.book.note_up("b", 50_000, seconds, START + 1.3 + 2 * seconds)
        assert len(pair.reports) == told, seconds
    assert pair.reports[-1].up_mbit == pytest.approx(7.692)


def test_a_link_in_doubt_is_probed_with_the_sample_that_made_it_doubtful(pair: Pair) -> None:
    for turn in range(6):
        pair.book.note_up("b", 50_000, 0.01, START + turn / 5)
    assert pair.probes == []
    pair.book.note_up("b", 50_000, 0.05, START + 2)
    assert len(pair.probes) == 1
    pair.book.note_up("b", 50_000, 0.05, START + 2.2)
    assert len(pair.probes) == 1, "one is still out"


def test_a_probe_is_answered_with_what_it_asked_for(pair: Pair) -> None:
    probe = Probe(5, "c", REPLY.at("t", node="c", boot="b9"), 9000, bytes(20_000))
    pair.book.answer(probe, Parcel("t", probe, START, 20_100, 19_900, 0.004), START + 0.5)
    echo = pair.echoes[0].packet
    assert isinstance(echo, Echo)
    assert (echo.id, echo.node, echo.train_bytes, echo.train_us) == (5, "a", 19_900, 4000)
    assert echo.held_us == pytest.approx(500_000, abs=2)
    assert len(echo.pad) == 9000


def test_a_greedy_probe_gets_no_more_than_we_would_send(pair: Pair) -> None:
    probe = Probe(5, "c", REPLY.at("t", node="c", boot="b9"), 30 * 2**20, b"")
    pair.book.answer(probe, Parcel("t", probe, START, 100, 0, 0.0), START)
    assert pair.echoes[0].bytes < 64_000


def test_the_number_of_links_is_bounded(pair: Pair) -> None:
    for number in range(2 * MAX_LINKS):
        pair.book.note_down(f"n{number}", 10_000, 0.01, START)
    assert len(pair.book._links) == MAX_LINKS


def settle(pair: Pair, rtt_s: float, mbit: float, since: float, samples: int = 8) -> float:
    """A link that shows these figures for a while; the time afterwards."""
    for number in range(samples):
        at = since + number
        pair.book.note_rtt("b", rtt_s, at)
        pair.book.note_up("b", int(mbit * 1e6 / 8), 1.0, at)
        pair.book.note_down("b", 1_000_000, 0.1, at)
        pair.book.tick(at)
        pair.book._probes.clear()
    return since + samples


def probes_in(pair: Pair, begin: float, seconds: float) -> list[Probe]:
    """Probes of a quiet time, each echoed at once without news: the link stays as it is."""
    before = len(pair.probes)
    for tick in range(int(seconds / 0.25)):
        at = begin + 0.25 * tick
        seen = len(pair.probes)
        pair.book.tick(at)
        if len(pair.probes) > seen:
            pair.book._probes.clear()
    return pair.probes[before:]


def test_a_link_whose_round_trip_got_long_is_looked_at_often_with_few_bytes(pair: Pair) -> None:
    now = settle(pair, 0.005, 50, START)
    assert len(probes_in(pair, now, 1.9)) <= 1, "one for an idle link"
    now = settle(pair, 0.1, 50, now + 2)
    found = probes_in(pair, now, 1.9)
    assert len(found) >= 3
    assert sum(len(probe.pad) < 100 for probe in found) >= len(found) - 1


@pytest.mark.parametrize(("mbit", "often"), [(20, True), (2, False)])
def test_a_rate_that_fell_is_looked_at_often_where_a_probe_is_cheap(pair: Pair, mbit: float, often: bool) -> None:
    now = settle(pair, 0.005, 100, START)
    now = settle(pair, 0.005, mbit, now)
    pair.book._suspects.clear()
    found = probes_in(pair, now, 1.9)
    assert (len(found) >= 3) == often


def test_what_is_so_for_two_minutes_is_taken_for_granted(pair: Pair) -> None:
    now = settle(pair, 0.005, 50, START)
    now = settle(pair, 0.1, 50, now, samples=130)
    assert len(probes_in(pair, now, 1.9)) <= 1


def test_a_short_round_trip_is_believed_beside_traffic_and_confirmed_at_once(pair: Pair) -> None:
    """A crowd can only make it longer."""
    now = settle(pair, 0.1, 50, START)
    pair.book.crowded = lambda: True
    pair.book.tick(now + 3)
    pair.book.take_echo(Echo(pair.probes[-1].id, "b", 0, 0, 0), Parcel("t", pair.echoes, now + 3.004, 900, 0, 0.0))  # type: ignore[arg-type]
    before = len(pair.probes)
    pair.book.tick(now + 3.25)
    assert len(pair.probes) > before
    pair.book.take_echo(Echo(pair.probes[-1].id, "b", 0, 0, 0), Parcel("t", pair.echoes, now + 3.254, 900, 0, 0.0))  # type: ignore[arg-type]
    estimate = pair.book.link("b").rtt_s.estimate
    assert estimate is not None
    assert estimate < 0.01
