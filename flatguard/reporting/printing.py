"""Prints pages to PDF with Chromium: tagged, with an outline and page numbers, figures as vectors.

Playwright drives the browser. The scripts of a page are off while it is printed, and it cannot
reach a network: a page holds all that it shows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flatguard.environment.requirements import needed
from flatguard.errors import EnvironmentProblem, one_line

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_CHANNELS = ("chrome", "msedge")
"""Browsers that Playwright finds where their installers put them."""

_FLAGS = ("--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")
_SECONDS = 300
_MARGIN = {"top": "14mm", "bottom": "17mm", "left": "13mm", "right": "13mm"}
_FOOTER = (
    '<div style="width:100%;margin:0 13mm;font:9px sans-serif;color:#444;display:flex;'
    'justify-content:space-between"><span class="title"></span><span style="white-space:nowrap;'
    'padding-left:2em">page <span class="pageNumber"></span> of <span class="totalPages"></span>'
    "</span></div>"
)
INSTALL = "python -m playwright install chromium"


def print_pages(pages: Sequence[Path]) -> list[Path]:
    """Print each `NAME.html` to `NAME.pdf` beside it, on A4.

    Raises:
        EnvironmentProblem: Playwright or Chromium is absent or does not start; with the command
            that installs it.
    """
    with needed("playwright", "pack", "a PDF"):
        from playwright.sync_api import Error, sync_playwright
    printed = []
    try:
        with sync_playwright() as playwright, _browser(playwright.chromium, Error) as browser:
            context = browser.new_context(
                offline=True, java_script_enabled=False, color_scheme="light"
            )
            context.set_default_timeout(1000 * _SECONDS)
            for page in pages:
                printed.append(_print(context.new_page(), page))
    except Error as error:
        raise EnvironmentProblem(f"Chromium could not print: {one_line(error)}") from error
    return printed


def _print(opened: Any, page: Path) -> Path:
    file = page.with_suffix(".pdf")
    opened.goto(page.resolve().as_uri())
    opened.pdf(
        path=file, format="A4", margin=_MARGIN, tagged=True, outline=True, print_background=True,
        display_header_footer=True, header_template="<span></span>", footer_template=_FOOTER,
    )  # fmt: skip
    opened.close()
    return file


@contextmanager
def _browser(chromium: Any, error: type[Exception]) -> Iterator[Any]:
    """Start the first Chromium that starts: of the path, Playwright's own, an installed one.

    Its sandbox is on where the system has one: not for root, nor in most containers.
    """
    found = [program for name in _PROGRAMS if (program := shutil.which(name))]
    places: list[dict[str, Any]] = [{"executable_path": program} for program in found[:1]]
    places += [{}, *({"channel": channel} for channel in _CHANNELS)]
    why = ""
    for place in places:
        for sandbox in (True, False):
            try:
                browser = chromium.launch(args=list(_FLAGS), chromium_sandbox=sandbox, **place)
            except error as problem:
                why = why or one_line(problem)
                continue
            try:
                yield browser
            finally:
                browser.close()
            return
    what = f"{found[0]} does not start ({why})" if found else "no Chromium is installed"
    raise EnvironmentProblem(f"a PDF needs Chromium; {what}; install one with: {INSTALL}")
