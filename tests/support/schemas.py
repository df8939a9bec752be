"""JSON schemas, compared by what they mean: pydantic's releases write the same in other words."""

from __future__ import annotations

from typing import Any


def meaning(schema: Any) -> Any:
    """A schema without `additionalProperties: true`, which is the default; without an `enum` of one
    value beside a `const`; and with an `allOf` of one schema written out."""
    if isinstance(schema, list):
        return [meaning(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: meaning(value) for name, value in schema.items()}
    if plain.get("additionalProperties") is True:
        del plain["additionalProperties"]
    if "const" in plain:
        plain.pop("enum", None)
    if isinstance(plain.get("allOf"), list) and len(plain["allOf"]) == 1:
        plain |= plain.pop("allOf")[0]
    return plain
