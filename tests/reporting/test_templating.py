import jinja2
import pytest
from support.pages import Page

from flatguard.reporting.figure import Table
from flatguard.reporting.templating import render, render_page


def test_values_are_escaped_and_made_visible() -> None:
    table = Table(("a<b",), (("\u202etxt",),))
    html = render("detection.html.j2", table=table, facts=[("name", "<script>")])
    assert "a&lt;b" in html
    assert "\\u202etxt" in html
    assert "<script>" not in html


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("detection.html.j2", table=Table((), ()))


def test_a_page_allows_only_its_own_script_and_style() -> None:
    page = Page(render_page("page.html.j2"))
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.count("'sha256-") == 2
    assert "unsafe" not in policy
