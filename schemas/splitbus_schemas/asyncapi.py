"""The topic registry as an AsyncAPI 3.0 document, a plain value: generate.py makes YAML of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from pydantic.json_schema import models_json_schema

from splitbus_schemas._kinds import KINDS_BY_TYPE
from splitbus_schemas._sealed import SEALED_KINDS
from splitbus_schemas.limits import WIRE_VERSION
from splitbus_schemas.meanings import meaning
from splitbus_schemas.packet_types import Sealed
from splitbus_schemas.topics import BLOB_DATA, BLOB_GET, ROOT, TOPICS, Topic

Document: TypeAlias = dict[str, Any]

JSON_TYPE: Final = "application/json"
PACKET_TYPE: Final = "application/vnd.splitbus.packet"
BINDING: Final = "0.2.0"

PARAMETERS: Final = {
    "site": "A place with nodes of its own; topics of different sites do not mix.",
    "node": "A node id, which is also the node's user name at the broker.",
    "device": "The node id of the device whose frames these are.",
    "peer": "The node id of the other end of a link.",
    "boot": "The id of one run of a node, new at every start.",
    "model": "The first 16 digits of a model's SHA-256.",
    "name": "The name under which a model is registered.",
    "bridge": "The name of a bridge, and its user name at the broker that it connects to.",
}

ABOUT: Final = (
    "splitbus lets cameras, edge gateways and cloud machines share one neural network over an MQTT broker. Operations "
    "are named by role: a node is a camera (device) or a worker, and an operator is a person with a tool. README.md "
    "beside this file is the contract itself: what every field means, how packets and parts stand byte by byte, and "
    "every limit."
)


def document(examples: Mapping[str, Any]) -> Document:
    """The document; `examples` are JSON values by topic name."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "splitbus",
            "version": f"{WIRE_VERSION}.0.0",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON_TYPE,
        "servers": _servers(),
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": dict(_operations()),
        "components": {
            "messages": dict(_messages(examples)),
            "parameters": {name: {"description": about} for name, about in PARAMETERS.items()},
            "securitySchemes": {
                "password": {"type": "userPassword", "description": "User name (the node id) and password."},
                "certificate": {"type": "X509", "description": "A client certificate; its common name is the node id."},
            },
            "schemas": _schemas(),
        },
    }


def _servers() -> Document:
    password, certificate = _ref("securitySchemes", "password"), _ref("securitySchemes", "certificate")
    common = {"protocolVersion": "5.0"}
    return {
        "local": {
            "host": "localhost:1883",
            "protocol": "mqtt",
            **common,
            "description": "Programs on the broker's own machine.",
            "security": [password],
        },
        "site": {
            "host": "broker.example:8883",
            "protocol": "secure-mqtt",
            **common,
            "description": "Nodes with a certificate.",
            "security": [certificate],
        },
    }


def _ref(kind: str, name: str) -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}


def _message_names(topic: Topic) -> list[str]:
    if topic.message is not None:
        return [topic.message.__name__]
    return [packet.__name__ for packet in topic.packets] or ["Heartbeat"]


def _channel(topic: Topic) -> Document:
    retained = "Retained. " if topic.retain else ""
    return {
        "address": f"{ROOT}/{{site}}/{topic.pattern}",
        "description": f"{topic.about} {retained}Written by: {', '.join(topic.writers)}.",
        "parameters": {name: _ref("parameters", name) for name in ("site", *topic.fields)},
        "messages": {name: _ref("messages", name) for name in _message_names(topic)},
    }


def _operations() -> Iterator[tuple[str, Document]]:
    """One for each topic, direction and role."""
    for topic in TOPICS:
        for action, roles in (("send", topic.writers), ("receive", topic.readers)):
            for role in roles:
                yield f"{role}-{action}s-{topic.name}", _operation(topic, action, role)


def _operation(topic: Topic, action: str, role: str) -> Document:
    operation: Document = {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"{role}: {topic.about}",
        "tags": [{"name": role}],
        "bindings": {"mqtt": {"qos": topic.qos, "retain": topic.retain, "bindingVersion": BINDING}},
        "messages": _message_refs(topic),
    }
    if topic is BLOB_GET:
        operation["reply"] = {
            "address": {"location": "$message.payload#/reply_to"},
            "channel": {"$ref": f"#/channels/{BLOB_DATA.name}"},
            "messages": [
                {"$ref": f"#/channels/{BLOB_DATA.name}/messages/{name}"} for name in _message_names(BLOB_DATA)
            ],
        }
    return operation


def _message_refs(topic: Topic) -> list[Document]:
    return [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in _message_names(topic)]


def _messages(examples: Mapping[str, Any]) -> Iterator[tuple[str, Document]]:
    for topic in TOPICS:
        if topic.message is not None:
            name = topic.message.__name__
            yield (
                name,
                {
                    "name": name,
                    "title": _first_sentence(topic.message.__doc__ or name),
                    "contentType": JSON_TYPE,
                    "payload": _ref("schemas", name),
                    "examples": [{"name": topic.name, "payload": examples[topic.name]}],
                },
            )
    for packet, kind in KINDS_BY_TYPE.items():
        about = f"A packet of kind {kind.number} ({kind.name}), whole or in parts; README.md says how its bytes stand."
        yield packet.__name__, _binary(packet.__name__, packet.__doc__ or kind.name, PACKET_TYPE, about)
    sealed = " and ".join(f"{number} ({kind.name})" for number, kind in SEALED_KINDS.items())
    about = f"A packet of kinds {sealed}, whole or in parts: its header in clear, its tensors sealed for the receiver."
    yield "Sealed", _binary("Sealed", Sealed.__doc__ or "", PACKET_TYPE, about)
    yield "Heartbeat", _binary("Heartbeat", "A heartbeat.", "application/octet-stream", "Whatever its sender likes.")


def _binary(name: str, title: str, content_type: str, about: str) -> Document:
    payload = {"type": "string", "format": "binary", "description": about}
    return {"name": name, "title": _first_sentence(title), "contentType": content_type, "payload": payload}


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).partition(". ")[0].rstrip(".") + "."


def _schemas() -> Document:
    models = {topic.message for topic in TOPICS if topic.message is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    schemas: Document = definitions["$defs"]
    for schema in schemas.values():
        for name, field in schema["properties"].items():
            field["description"] = meaning(name, field)
    return dict(sorted(schemas.items()))
