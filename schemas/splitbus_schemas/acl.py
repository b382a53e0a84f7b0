"""The broker's rules for who may read and write what, as a Mosquitto ACL file made from the topic registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from splitbus_schemas.ids import check_id
from splitbus_schemas.topics import ROOT, TOPICS, Topic

OWN: Final = "%u"
"""Mosquitto puts the client's user name in its place; it must fill a whole level."""

HEADING: Final = """\
# Who may read and write what. Made from schemas/splitbus_schemas/topics.py by `python -m splitbus_schemas.generate`;
# do not edit.
#
# A node's user name is its node id. What is not allowed here is forbidden, and what a client may not read is not
# delivered to it, whatever it subscribes to.
"""


def acl(
    *,
    gateway: Sequence[str] = ("gateway",),
    operators: Sequence[str] = ("operator",),
    workers: Sequence[str] = ("edge1", "cloud1"),
    devices: Sequence[str] | None = None,
    site: str = "+",
) -> str:
    """The ACL file for users by role; `devices` None: any user may be one. Raises ConfigError for a bad name."""
    every_user = ("node", "nodes") if devices is not None else ("node", "nodes", "device")
    lines = [HEADING, "# --- Every user, under its own name", *_rules("pattern", every_user, OWN, site)]
    by_role = {"gateway": gateway, "operators": operators, "workers": workers, "device": devices or ()}
    for role, names in by_role.items():
        for name in names:
            lines += ["", *user_rules(role, name, site=site)]
            if role == "operators":
                lines += ["# the broker's own counters", "topic read $SYS/#"]
            if role == "gateway":
                lines += ["# whether a bridge is connected", "topic read $SYS/broker/connection/+/state"]
    return "\n".join([*lines, ""])


def user_rules(role: str, name: str, *, site: str = "+", title: str = "") -> Iterator[str]:
    """The lines of one user: `title`, or the role, what it may do. Raises ConfigError for a bad name."""
    yield f"# --- {title or role}"
    yield f"user {check_id('user name', name)}"
    yield from _rules("topic", (role,), name, site)


def _rules(keyword: str, roles: Sequence[str], name: str, site: str) -> Iterator[str]:
    """What users of any of the roles may do, topic by topic."""
    for topic in TOPICS:
        rules = [
            f"{keyword} {access} {_filter(topic, role, name, site)}"
            for access, allowed in (("read", topic.readers), ("write", topic.writers))
            for role in roles
            if role in allowed
        ]
        if rules:
            yield f"# {topic.name}"
            yield from rules


def _filter(topic: Topic, role: str, name: str, site: str) -> str:
    """All topics of the kind; where the role is a field of the topic, only those with `name` there."""
    fields = {field: name if field == role else "+" for field in topic.fields}
    return f"{ROOT}/{site}/{topic.pattern.format(**fields)}"
