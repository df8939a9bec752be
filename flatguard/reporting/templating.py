"""Templates and self-contained pages: everything that they write is escaped.

A page is one file. It loads nothing and runs one script of its own. Its policy forbids everything
but its style sheet and its script, both by hash, and images in data URIs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flatguard.reporting.glossary import terms_on
from flatguard.reporting.text import between, counted, number, percent, visible

_PACKAGE = "flatguard.reporting"
_TERMS = "<!-- terms -->"
"""Where a page lists its terms. No text of others can hold it: it is escaped."""


def render(template: str, **values: Any) -> Markup:
    """A template of this package with these values, as HTML."""
    return Markup(_environment().get_template(template).render(**values))


def render_page(template: str, **values: Any) -> str:
    """A page with its terms, its style sheet, its script and the policy that allows only them."""
    sources = {"style": "style.css", "script": "report.js"}
    for name, file in sources.items():
        content = (files(_PACKAGE) / "templates" / file).read_text("utf-8")
        digest = hashlib.sha256(content.encode("utf-8")).digest()
        values[name] = Markup(content)
        values[f"{name}_hash"] = f"sha256-{base64.b64encode(digest).decode('ascii')}"
    page = render(template, version=version("flatguard"), **values)
    return page.replace(_TERMS, render("terms.html.j2", terms=terms_on(page)))


def facts_table(rows: Iterable[tuple[str, str]]) -> Markup:
    """A table of names and values."""
    row = Markup("<tr><th scope='row'>{}</th><td>{}</td></tr>")
    body = Markup("").join(row.format(visible(name), visible(text)) for name, text in rows)
    return Markup("<table>{}</table>").format(body)


@lru_cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_make_visible,
    )
    found.filters.update(percent=percent, between=between, number=number, counted=counted)
    return found


def _make_visible(value: Any) -> Any:
    """Leave our markup; make hidden characters of other text visible, before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
