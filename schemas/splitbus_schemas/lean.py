"""Models that stop reading a list at its first mistake: otherwise 1 MB of JSON becomes a million errors and 800 MB."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema


def _fail_fast(schema: Any) -> None:
    """Every list in the schema, at whatever depth."""
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        for key, value in schema.items():
            if key != "metadata":
                _fail_fast(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            _fail_fast(value)


class LeanModel(BaseModel):
    """Base of everything that is read from the wire."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _fail_fast(schema)
        return schema
