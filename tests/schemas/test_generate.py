"""What is made from the registries is up to date, complete, and valid for those who will read it."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.packets import MESSAGES

from splitbus_schemas import generate, limits, tables
from splitbus_schemas.meanings import MEANINGS
from splitbus_schemas.messages import Message, Part
from splitbus_schemas.topics import BLOB_GET, TOPICS, Topic

ASYNCAPI = Path(__file__).with_name("asyncapi-3.0.0.json.gz")
"""The official schema as published in the npm package @asyncapi/specs 6.11.1 (Apache-2.0)."""

CONTRACT = (generate.ROOT / "schemas" / "README.md").read_text(encoding="utf-8")
WIRE = re.compile(r"WIRE-\d+")


@pytest.fixture(scope="module")
def document() -> Any:
    return yaml.safe_load((generate.ROOT / "schemas" / "asyncapi.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the program reads and writes."""
    for name in ("schemas/golden", "mosquitto", "docs"):
        shutil.copytree(generate.ROOT / name, tmp_path / name)
    for name in ("schemas/README.md", "schemas/asyncapi.yaml"):
        shutil.copyfile(generate.ROOT / name, tmp_path / name)
    return tmp_path


def test_the_generated_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """WIRE-6"""
    code = generate.main(["--check"])
    assert (code, capsys.readouterr().err) == (0, "")


@pytest.mark.parametrize("name", ["schemas/asyncapi.yaml", "mosquitto/acl", "docs/topics.md", "schemas/README.md"])
def test_a_file_that_differs_is_named_and_put_right(
    checkout: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkout / name
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace("NodeStats", "Nobody").replace("gateway", "anyone"), encoding="utf-8")
    assert generate.main(["--check", "--root", str(checkout)]) == 1
    assert capsys.readouterr().err == f"{name} is out of date: run `python -m splitbus_schemas.generate`\n"
    if name != "schemas/README.md":
        path.unlink()
    assert generate.main(["--root", str(checkout)]) == 0
    assert capsys.readouterr().out == f"wrote {name}\n"
    assert generate.main(["--check", "--root", str(checkout)]) == 0
    if name != "schemas/README.md":
        assert path.read_text(encoding="utf-8") == right


def test_nodes_need_no_yaml() -> None:
    """Only the program that writes the document does, and a camera's install has none."""
    modules = [path.stem for path in Path(tables.__file__).parent.glob("*.py") if path.stem != "__init__"]
    program = "import sys\n" + "".join(f"import splitbus_schemas.{name}\n" for name in modules)
    subprocess.run([sys.executable, "-c", f"{program}assert 'yaml' not in sys.modules"], check=True)
    assert "generate" in modules


def test_a_contract_without_its_marks_is_not_filled_in() -> None:
    with pytest.raises(ValueError, match="lacks <!-- generated: limits -->"):
        tables.readme("# The wire contract\n")


def test_the_asyncapi_document_is_valid(document: Any) -> None:
    """WIRE-6: against the official JSON schema."""
    schema = json.loads(gzip.decompress(ASYNCAPI.read_bytes()))
    jsonschema.Draft7Validator(schema).validate(document)
    broken = {**document, "operations": {"x": {"action": "shout"}}}
    assert not jsonschema.Draft7Validator(schema).is_valid(broken), "the validator does look"


def test_every_reference_in_the_document_leads_somewhere(document: Any) -> None:
    references = list(find(document, "$ref"))
    assert len(references) > 100
    for reference in references:
        value = document
        for step in reference.removeprefix("#/").split("/"):
            value = value[step]


def find(value: Any, key: str) -> list[Any]:
    match value:
        case dict():
            return [value[key]] if key in value else [hit for inner in value.values() for hit in find(inner, key)]
        case list():
            return [hit for inner in value for hit in find(inner, key)]
        case _:
            return []


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_the_document_says_what_the_registry_says(document: Any, topic: Topic) -> None:
    """WIRE-6"""
    channel = document["channels"][topic.name]
    assert channel["address"] == f"splitbus/v1/{{site}}/{topic.pattern}"
    assert set(channel["parameters"]) == {"site", *topic.fields}
    expected = {topic.message.__name__} if topic.message else {kind.__name__ for kind in topic.packets} or {"Heartbeat"}
    assert set(channel["messages"]) == expected
    for action, roles in (("send", topic.writers), ("receive", topic.readers)):
        found = {
            name: operation
            for name, operation in document["operations"].items()
            if operation["action"] == action and operation["channel"]["$ref"] == f"#/channels/{topic.name}"
        }
        assert set(found) == {f"{role}-{action}s-{topic.name}" for role in roles}
        for operation in found.values():
            assert operation["bindings"]["mqtt"]["qos"] == topic.qos
            assert operation["bindings"]["mqtt"]["retain"] == topic.retain
            assert ("reply" in operation) == (topic is BLOB_GET)


@pytest.mark.parametrize("name", [name for name in MESSAGES if name != "slice-manifest"])
def test_the_schemas_in_the_document_fit_the_messages(document: Any, name: str) -> None:
    """WIRE-40: what we send passes the published schema, and what it forbids does not."""
    kind = type(MESSAGES[name]).__name__
    schema = {"$ref": f"#/components/schemas/{kind}", "components": document["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    value = json.loads(MESSAGES[name].to_json())
    validator.validate(value)
    assert not validator.is_valid({**value, "v": "one"})
    (example,) = document["components"]["messages"][kind]["examples"]
    validator.validate(example["payload"])


def test_the_contract_explains_every_limit_message_and_field() -> None:
    """WIRE-4, WIRE-42"""
    for name in vars(limits):
        if name.isupper():
            assert f"| `{name}` |" in CONTRACT
    kinds = [kind for kind in Message.__subclasses__() if kind.__module__.startswith("splitbus_schemas.")]
    for kind in kinds:
        assert f"#### {kind.__name__}\n" in CONTRACT
        assert all(f"| `{field}` |" in CONTRACT for field in kind.model_fields if field != "v")
    fields = {name for kind in (*kinds, *Part.__subclasses__()) for name in kind.model_fields}
    assert set(MEANINGS) <= fields, "a meaning without a field"


def test_the_limits_in_the_contracts_sentences_are_those_of_the_code() -> None:
    """WIRE-4"""
    mib = 2**20
    said = {
        5: (f"at most {limits.MAX_TOPIC_BYTES} bytes", f"at most {limits.MAX_ID_BYTES} bytes"),
        12: (f"at most {limits.MAX_HEADER_BYTES // 1024} KiB", f"at most {limits.MAX_HEADER_ITEMS} entries"),
        15: (f"at most {limits.MAX_WORD_BYTES}", f"name {limits.MAX_NAME_BYTES}", f"text {limits.MAX_TEXT_BYTES}"),
        17: (f"at most {limits.MAX_TENSORS} rows", f"at most {limits.MAX_RANK} sizes"),
        20: (f"exceed {limits.MAX_TENSOR_BYTES // mib} MiB",),
        24: (f"1 to {limits.MAX_STAGES} stages", f"at most {limits.MAX_SPENT} rows"),
        27: (f"at most {limits.MAX_PACKET_BYTES // 2 // mib} MiB",),
        28: (f"at most {limits.MAX_BLOB_BYTES // 2**30} GiB",),
        31: (f"2 to {limits.MAX_PARTS} parts", f"at most {limits.MAX_PACKET_BYTES // mib} MiB"),
        36: (
            f"at most {limits.MAX_PARTIAL_PACKETS} packets",
            f"{limits.MAX_PARTIAL_BYTES // mib} MiB",
            f"{limits.PARTIAL_SECONDS:g} s",
        ),
        37: (f"at most {limits.TRAIN_HEAD_BYTES} bytes", f"below {limits.TRAIN_MIN_BYTES // 1024} KiB"),
        40: (f"at most {limits.MAX_JSON_BYTES // mib} MiB",),
    }
    for number, phrases in said.items():
        sentence = " ".join(CONTRACT.split(f"**WIRE-{number}**")[1].split("**WIRE-")[0].split())
        for phrase in phrases:
            assert phrase in sentence, f"WIRE-{number}"


def test_every_rule_of_the_contract_has_a_test_that_names_it() -> None:
    rules = re.findall(r"^- \*\*(WIRE-\d+)\*\*", CONTRACT, re.MULTILINE)
    assert len(rules) == len(set(rules)) > 40
    tests = Path(__file__).parents[1].rglob("test_*.py")
    docstrings = {rule for path in tests for rule in named_in_docstrings(path)}
    assert docstrings == set(rules)


def named_in_docstrings(path: Path) -> set[str]:
    docstrings = re.findall(r'^    """(.*)"""$', path.read_text(encoding="utf-8"), re.MULTILINE)
    return {rule for docstring in docstrings for rule in WIRE.findall(docstring)}
