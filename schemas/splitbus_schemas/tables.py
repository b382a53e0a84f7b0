"""The tables of the documentation, made from the registries so that they cannot drift."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic.fields import FieldInfo

from splitbus_schemas import limits, messages
from splitbus_schemas.meanings import meaning
from splitbus_schemas.topics import ROOT, TOPICS, Topic

BEGIN: Final = "<!-- {} -->"
"""Marks where a generated piece of a page begins and, with a slash, where it ends."""

PATTERNS: Final = {
    "^[0-9a-f]{64}$": "SHA-256",
    "^[0-9a-f]{16}$": "key id",
    "^x25519:[A-Za-z0-9+/]{43}=$": "public key",
    "^[a-z0-9][a-z0-9_-]*$": "id",
    "^(raw|zstd)$": "`raw`, `zstd`",
}
"""What people call a string of that form."""


def topics_page(examples: Mapping[str, Any]) -> str:
    """docs/topics.md: who writes and reads each topic, and what it looks like. `examples` by topic name."""
    rows = [_topic_row(topic) for topic in TOPICS]
    lines = [
        "# Topics",
        "",
        "Generated from `schemas/splitbus_schemas/topics.py` by `python -m splitbus_schemas.generate`; do not edit.",
        f"Every topic begins with `{ROOT}/<site>/`. Control and status are JSON for anyone to read; jobs, replies and",
        "blobs are binary packets, which `splitbus tap` decodes. `schemas/README.md` explains every field.",
        "",
        *_table(("topic", "below the site", "written by", "read by", "QoS", "retained", "carries"), rows),
        "",
        "Roles: `node` and `device` are the node named in that place of the topic, `nodes` is any node.",
    ]
    for topic in TOPICS:
        lines += ["", f"## {topic.name}", "", f"`{ROOT}/<site>/{_placeholders(topic)}`", "", topic.about]
        if topic.message is not None:
            lines += ["", "```json", json.dumps(examples[topic.name], indent=2, ensure_ascii=False), "```"]
    return "\n".join([*lines, ""])


def readme(text: str) -> str:
    """schemas/README.md with its generated pieces as they should be."""
    for name, piece in (("limits", limits_table()), ("messages", messages_tables())):
        begin, end = BEGIN.format(f"generated: {name}"), BEGIN.format(f"/generated: {name}")
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"schemas/README.md lacks {begin} ... {end}")
        text = f"{before}{begin}\n{piece}\n{end}{after}"
    return text


def limits_table() -> str:
    """Every constant of limits.py with its value and its reason."""
    rows = [(f"`{name}`", _number(getattr(limits, name)), about) for name, about in _documented_constants()]
    return "\n".join(_table(("limit", "value", "why"), rows))


def messages_tables() -> str:
    """Every message and every part of one: fields, types, defaults, meanings."""
    families = (*messages.Message.__subclasses__(), *messages.Part.__subclasses__())
    kinds = [kind for kind in families if kind.__module__.startswith(messages.__name__)]
    lines: list[str] = []
    for kind in kinds:
        fields = {name: field for name, field in kind.model_fields.items() if name != "v"}
        properties = kind.model_json_schema()["properties"]
        rows = [
            (f"`{name}`", _type(properties[name]), _default(field), _plain(meaning(name, properties[name])))
            for name, field in fields.items()
        ]
        about = _plain(" ".join((kind.__doc__ or "").split()))
        lines += [f"#### {kind.__name__}", "", about, "", *_table(("field", "type", "default", "meaning"), rows), ""]
    return "\n".join(lines[:-1])


def _plain(text: str) -> str:
    """Text in which <node> is no HTML."""
    return text.replace("<", "&lt;")


def _documented_constants() -> Iterator[tuple[str, str]]:
    body = ast.parse(inspect.getsource(limits)).body
    for statement, following in itertools.pairwise(body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        match following:
            case ast.Expr(value=ast.Constant(value=str(about))):
                yield statement.target.id, " ".join(about.split())
            case _:
                raise ValueError(f"limits.py: {statement.target.id} has no reason")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _number(value: float) -> str:
    return f"{value:,}".replace(",", " ") if isinstance(value, int) and value > 9999 else str(value)  # a hard space


def _topic_row(topic: Topic) -> tuple[str, ...]:
    return (
        f"[{topic.name}](#{topic.name})",
        f"`{topic.pattern}`",
        ", ".join(topic.writers),
        ", ".join(topic.readers),
        str(topic.qos),
        "yes" if topic.retain else "",
        _content(topic),
    )


def _content(topic: Topic) -> str:
    if topic.message is not None:
        return topic.message.__name__
    return ", ".join(packet.__name__ for packet in topic.packets) or "anything"


def _placeholders(topic: Topic) -> str:
    return topic.pattern.format(**{name: f"<{name}>" for name in topic.fields})


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON Schema in a few words."""
    match schema:
        case {"$ref": ref}:
            words = str(ref).rpartition("/")[2]
        case {"anyOf": [*choices]}:
            words = " or ".join(_type(choice) for choice in choices)
        case {"enum": [*values]}:
            words = ", ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": items}:
            words = f"list of {_type(items)}"
        case {"type": "object", "additionalProperties": inner}:
            words = f"map to {_type(inner)}"
        case {"type": "string", "pattern": pattern}:
            words = PATTERNS.get(pattern, f"string `{pattern}`")
        case {"type": name}:
            words = f"{name}{_range(schema)}"
        case _:
            raise ValueError(f"no words for {schema}")
    return words


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if high == limits.MAX_INTEGER:
        high = None
    if high is not None:
        return f", {low:g} to {high:g}"
    if low is None:
        return ""
    return f" above {low:g}" if "exclusiveMinimum" in schema else f" from {low:g}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "absent" if value is None else f"`{json.dumps(value)}`"
