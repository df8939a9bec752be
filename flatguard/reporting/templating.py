"""Templates: everything that they write is escaped, and what cannot be seen is made visible."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flatguard.reporting.text import between, counted, number, percent, visible


def render(template: str, **values: Any) -> Markup:
    """A template of this package with these values, as HTML."""
    return Markup(_environment().get_template(template).render(**values))


def source(template: str) -> str:
    """A file of the templates as it stands: the style sheet, the script."""
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), template)[0]


@lru_cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("flatguard.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    found.filters.update(percent=percent, between=between, number=number, counted=counted)
    return found


def _shown(value: Any) -> Any:
    """Markup is ours and stays; every other text is made visible, and then escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
