"""A browser for the pages; `make test-browser` installs Chromium and Playwright."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.reports import HOSTILE, SMALL, judged

from flatguard.reporting.compare import compare_runs
from flatguard.reporting.compare_page import compare_page
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.paired_path import paired_path
from flatguard.reporting.report import report_files
from flatguard.runs.run import Run

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-dev-shm-usage",
)  # fmt: skip
REQUIRED = "FLATGUARD_BROWSER"
"""`make test-browser` sets it. The tests then fail without a browser, instead of being skipped."""


def skip_or_fail(why: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(f"{why}, but {REQUIRED} is set")
    pytest.skip(f"{why}; make test-browser installs it")


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip_or_fail("Playwright is not installed")
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        skip_or_fail("Chromium is not installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory, browser: object) -> dict[str, Path]:
    """Reports and a comparison, as files."""
    folder = tmp_path_factory.mktemp("pages")
    run = judged(folder / "run", SMALL)
    hostile = judged(folder / "hostile", names=HOSTILE)
    comparison = folder / "compare.html"
    found, side = compare_runs(run, run), JudgedRun.load(run)
    comparison.write_text(compare_page(found, paired_path(side, side, found)), "utf-8")
    return {
        "report": report_files(run).html,
        "hostile": report_files(hostile).html,
        "compare": comparison,
    }


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory, browser: object) -> Run:
    """Many samples and steps: the page is near its full size."""
    from dataclasses import replace

    size = replace(SMALL, samples=1000, steps=100, block=500, side=32)
    return judged(tmp_path_factory.mktemp("large") / "run", size)
