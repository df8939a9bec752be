"""JSON schemas, compared by what they mean."""

from __future__ import annotations

from typing import Any


def meaning(schema: Any) -> Any:
    """A schema without `additionalProperties: true`, which is the default: not every pydantic
    writes it."""
    if isinstance(schema, dict):
        plain = {name: meaning(value) for name, value in schema.items()}
        if plain.get("additionalProperties") is True:
            del plain["additionalProperties"]
        return plain
    return [meaning(value) for value in schema] if isinstance(schema, list) else schema
