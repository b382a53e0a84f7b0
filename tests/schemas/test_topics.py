"""Topics: what is built is what is parsed, and nothing that cannot stand in a topic gets into one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_schemas.errors import ConfigError, DecodeError
from splitbus_schemas.ids import check_id, is_id, is_sha256, model_key, sha256
from splitbus_schemas.messages import Message
from splitbus_schemas.topics import BEYOND, ECHO, JOB, MODEL, PLAN, REPLY, TOPICS, Topic, parse_topic

ids = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,40}", fullmatch=True)
kinds = st.sampled_from(TOPICS)
ODD = (
    "",
    "A",
    "a/b",
    "#",
    "a+",
    "+a",
    "é",
    "a b",
    "-a",
    "_a",
    "a\0",
    "a\n",
    "\u0660",
    "x" * 65,
    "%u",
    "$SYS",
    ".",
    "a.b",
)
"""What must not stand in a topic; \u0660 is a digit for Python, and not for us."""


@given(kinds, st.data())
def test_building_and_parsing_are_inverses(kind: Topic, data: st.DataObject) -> None:
    """WIRE-5, WIRE-6: and no topic can be taken for one of another kind."""
    fields = {name: data.draw(ids) for name in kind.fields}
    site = data.draw(ids)
    topic = kind.at(site, **fields)
    assert parse_topic(topic) == (kind, {"site": site, **fields})
    assert [other for other in TOPICS if other.match(topic)] == [kind]


@given(kinds, st.data())
def test_odd_characters_are_refused_wherever_they_stand(kind: Topic, data: st.DataObject) -> None:
    """WIRE-5"""
    fields = dict.fromkeys(("site", *kind.fields), "a")
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(st.sampled_from(ODD))
    with pytest.raises(ConfigError):
        kind.at(**fields)


@given(kinds, st.data())
def test_wildcards_build_filters_that_are_no_topics(kind: Topic, data: st.DataObject) -> None:
    """WIRE-5: a wildcard stands for a whole level, and nobody publishes there."""
    fields = dict.fromkeys(("site", *kind.fields), "a")
    for name in data.draw(st.sets(st.sampled_from(sorted(fields)), min_size=1)):
        fields[name] = "+"
    pattern = kind.at(**fields)
    assert pattern.count("+") == list(fields.values()).count("+")
    with pytest.raises(DecodeError):
        parse_topic(pattern)


@pytest.mark.parametrize("value", ODD)
def test_odd_levels_are_not_parsed(value: str) -> None:
    """WIRE-5, WIRE-7"""
    for topic in (f"splitbus/v1/home/echo/{value}", f"splitbus/v1/{value}/echo/cam1"):
        with pytest.raises(DecodeError, match="none of splitbus"):
            parse_topic(topic)


OTHER_TOPICS = (
    "", "/", "splitbus", "splitbus/v1", "splitbus/v2/home/echo/cam1", "/splitbus/v1/home/echo/cam1",
    "splitbus/v1/home/echo/cam1/", "splitbus/v1/home/echo/cam1/x", "splitbus/v1/home/ctl/cam1", "$SYS/broker/uptime",
)  # fmt: skip


@pytest.mark.parametrize("topic", OTHER_TOPICS)
def test_other_topics_are_refused(topic: str) -> None:
    """WIRE-1, WIRE-7"""
    with pytest.raises(DecodeError, match="none of splitbus"):
        parse_topic(topic)


@given(st.text())
def test_any_text_is_a_topic_or_refused(text: str) -> None:
    """WIRE-7"""
    for topic in (text, f"splitbus/v1/{text}", f"splitbus/v1/home/job/{text}"):
        try:
            kind, fields = parse_topic(topic)
        except DecodeError:
            continue
        assert kind.at(**fields) == topic


def test_topics_end_at_200_bytes() -> None:
    """WIRE-5"""
    names = {"site": "s" * 54, "node": "n" * 64, "device": "d" * 64}
    topic = JOB.at(**names)
    assert len(topic) == 200
    assert parse_topic(topic) == (JOB, names)
    with pytest.raises(ConfigError, match="use shorter ids"):
        JOB.at(**{**names, "site": "s" * 55})
    with pytest.raises(DecodeError):
        parse_topic(topic.replace("v1/s", "v1/ss"))


def test_the_registry_is_sound() -> None:
    """WIRE-6: roles, delivery and contents of every topic make sense together."""
    roles = {"node", "device", "nodes", "workers", "gateway", "operators", "bridge"}
    assert len({kind.name for kind in TOPICS}) == len({kind.pattern for kind in TOPICS}) == len(TOPICS)
    for kind in TOPICS:
        assert kind.writers
        assert kind.readers
        assert {*kind.writers, *kind.readers} <= roles
        assert {"node", "device"} & {*kind.writers, *kind.readers} <= set(kind.fields)
        assert kind.qos in {0, 1}
        assert kind.about.endswith(".")
        assert not (kind.message and kind.packets), "readable or binary, not both"
        assert not (kind.packets and kind.retain), "data is never retained"
        assert kind.message or kind.packets or kind in (ECHO, BEYOND)
        assert kind.message is None or issubclass(kind.message, Message)
    assert all(kind.writers == ("gateway",) for kind in TOPICS if kind.pattern.startswith("ctl/"))


def test_a_field_that_is_missing_is_a_programs_mistake() -> None:
    with pytest.raises(KeyError):
        PLAN.at("home", node="cam1")
    assert MODEL.at("home", name="+") == "splitbus/v1/home/model/+"
    assert REPLY.fields == ("node", "boot")


def test_ids_and_hashes() -> None:
    """WIRE-15"""
    assert is_id("cam-1_b")
    assert not any(is_id(text) for text in ODD)
    assert check_id("node", "cam1") == "cam1"
    with pytest.raises(ConfigError, match="node 'Cam 1' cannot stand in a topic"):
        check_id("node", "Cam 1")
    digest = sha256(b"")
    assert digest.startswith("e3b0c44298fc1c14")
    assert is_sha256(digest)
    assert not any(is_sha256(text) for text in ("", digest[:-1], digest.upper(), digest + "0", digest[:-1] + "\u0660"))
    assert model_key(digest) == "e3b0c44298fc1c14"
    assert is_id(model_key(digest))


def test_what_a_match_gave_is_the_callers_own() -> None:
    """Matches are remembered; what one caller does with its fields is nothing to the next."""
    topic = REPLY.at("home", node="cam1", boot="k3x9")
    first = REPLY.match(topic)
    assert first is not None
    first["node"] = "cam2"
    assert REPLY.match(topic) == {"site": "home", "node": "cam1", "boot": "k3x9"}
