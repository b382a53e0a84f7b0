"""What is said of a node's health, and of loops that hang; by a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime.health import LATELY_SECONDS, MAX_KINDS, TELL_SECONDS, Health, Identity, judged
from splitbus_runtime.pulse import Pulse, Pulses
from splitbus_runtime.secrets import Secrets
from splitbus_schemas.messages import NodeHealth


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def stamp(self) -> str:
        return f"at {self.now:g}"


def health() -> tuple[Health, Clock]:
    clock = Clock()
    return Health(clock.stamp, clock), clock


def test_a_loop_that_does_not_end_is_stuck_and_one_that_goes_on_is_not() -> None:
    clock = Clock()
    pulses = Pulses(clock)
    pulse, other = pulses.add("run-0", 10), pulses.add("orders", 10)
    with pulse.working("frame 7 of cam"), other.working("a long order"):
        clock.now += 9
        other.on()
        clock.now += 2
        assert pulses.stuck(clock.now) == ["frame 7 of cam has been under way for 11 s, 10 s are allowed"]
        assert pulses.busy_s(clock.now) == {"run-0": 11.0, "orders": 2.0}
    assert pulses.stuck(clock.now) == []
    clock.now += 1000
    assert pulses.stuck(clock.now) == [], "who waits for work is well"
    with pytest.raises(ValueError, match="mine"), pulse.working("what fails"):
        raise ValueError("mine")
    clock.now += 1000
    assert pulse.stuck(clock.now) is None
    Pulse(1).on()


def test_trouble_is_told_for_a_minute_and_the_state_knows_since_when() -> None:
    found, clock = health()
    assert (found.verdict().state, found.verdict().since) == ("ok", "at 100")
    clock.now = 110.0
    found.trouble("bad_jobs", "one")
    found.trouble("bad_jobs", "another, mqtt://cam:sesame@host")
    clock.now = 120.0
    verdict = found.verdict(0.5)
    assert (verdict.state, verdict.since) == ("degraded", "at 120")
    assert verdict.reasons == ("bad_jobs 2 times in the last minute, the last: another, mqtt://***@host",)
    clock.now = 110.0 + LATELY_SECONDS
    assert found.verdict(0.5).since == "at 120"
    clock.now += 0.1
    assert (found.verdict(0.5).state, found.verdict(0.5).reasons) == ("ok", ())


def test_what_hangs_comes_first_and_an_old_heartbeat_is_no_hang() -> None:
    late = judged([], 12.0, {"errors": (1, "x")})
    assert (late.state, late.reasons[0]) == ("degraded", "no heartbeat has come back through the broker for 12 s")
    assert late.reasons[1] == "errors once in the last minute, the last: x"
    stuck = judged(["frame 1 hangs"], 12.0, {"errors": (1, "x")})
    assert (stuck.state, stuck.reasons[0]) == ("stuck", "frame 1 hangs")
    assert str(judged([], None, {})) == "ok"


def test_it_is_told_at_changes_and_now_and_then() -> None:
    """WIRE-69"""
    found, clock = health()
    assert found.is_due(found.verdict())
    assert not found.is_due(found.verdict())
    found.trouble("errors", "x")
    assert found.is_due(found.verdict())
    found.trouble("errors", "y")
    assert not found.is_due(found.verdict()), "more of the same"
    found.trouble("floods", "z")
    assert found.is_due(found.verdict()), "something else fails as well"
    clock.now += TELL_SECONDS
    assert found.is_due(found.verdict())


def test_the_message_holds_all_of_it() -> None:
    found, clock = health()
    with found.pulses.add("run-0", 5).working("frame 1 of cam"):
        clock.now += 6
        told = found.message(
            found.verdict(1.0), Identity("w1", "b1", "edge", "splitbus 1"), uptime_s=9.04, ages={"echo": 1.0},
            counters={"jobs": 3},
        )  # fmt: skip
    assert NodeHealth.from_json(told.to_json()) == told
    assert (told.state, told.uptime_s, told.ages_s, told.counters) == (
        "stuck",
        9.0,
        {"run-0": 6.0, "echo": 1.0},
        {"jobs": 3},
    )


def test_kinds_of_trouble_are_bounded() -> None:
    found, _ = health()
    for number in range(1000):
        found.trouble(f"kind{number}", "x" * 5000)
    verdict = found.verdict()
    assert len(verdict.kinds) == MAX_KINDS
    assert sum(map(len, verdict.reasons)) < 5000


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=4, max_size=30))
def test_a_known_secret_is_hidden_as_a_word_of_its_own(secret: str) -> None:
    kept = Secrets()
    assert kept.keep(secret) == secret
    for text in (f"is {secret} right", secret, f"<{secret}>", f"given\n{secret}\n"):
        assert secret not in kept.hide(text).replace("***", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mqtts://cam:pw@host:8883/x", "mqtts://***@host:8883/x"),
        ("https://host/x?api_key=abc123&y=1", "https://host/x?api_key=***&y=1"),
        ('{"password": "abc 1"', '{"password": "*** 1"'),
        ("broker.password_file: /etc/x is empty", "broker.password_file: /etc/x is empty"),
        ("Authorization: Bearer abcdef.ghijkl", "Authorization: Bearer ***"),
        ("the password went over the network as it is", "the password went over the network as it is"),
        ("ed25519:" + "A" * 43 + "=", "ed25519:" + "A" * 43 + "="),
    ],
)
def test_what_looks_like_a_secret(text: str, shown: str) -> None:
    assert Secrets().hide(text) == shown
