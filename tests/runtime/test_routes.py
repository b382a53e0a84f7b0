"""Handlers by topic agree with MQTT's matching, however filters come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime.bus import Delivery, matches
from splitbus_runtime.routes import MAX_ROUTES, Routes

LEVELS = st.sampled_from(["a", "b", "+"])
FILTERS = st.lists(LEVELS, min_size=1, max_size=3).map("/".join)
TOPICS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3).map("/".join)


class Handler:
    def __call__(self, delivery: Delivery) -> None: ...


@given(st.lists(st.tuples(st.booleans(), FILTERS, TOPICS), max_size=30))
def test_a_topic_has_the_handlers_of_the_filters_that_match(steps: list[tuple[bool, str, str]]) -> None:
    routes, expected = Routes(), dict[str, Handler]()
    for add, pattern, topic in steps:
        if add:
            expected[pattern] = Handler()
            routes.add([pattern], expected[pattern], 1)
        else:
            expected.pop(pattern, None)
            routes.remove([pattern])
        assert routes.of(topic) == [handler for known, handler in expected.items() if matches(known, topic)]
        assert routes.wanted == [(known, 1) for known in expected]


def test_what_is_remembered_is_bounded() -> None:
    routes = Routes()
    routes.add(["#"], Handler(), 0)
    for number in range(3 * MAX_ROUTES):
        assert len(routes.of(f"t/{number}")) == 1
    assert len(routes._known) <= MAX_ROUTES
