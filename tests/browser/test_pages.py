"""The pages in a real browser, without any network."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.reports import HOSTILE

from flatguard.reporting.report import report_files
from flatguard.reporting.text import visible
from flatguard.runs.run import Run

LARGE, SMALL = (1280, 800), (390, 844)
FIRST_PAINT = 2000.0
PAINTED = """() => new Promise(done => new PerformanceObserver(list => {
  const found = list.getEntriesByName("first-contentful-paint");
  if (found.length) done(found[0].startTime);
}).observe({type: "paint", buffered: true}))"""


@contextmanager
def opened(browser: Any, file: Path, size: tuple[int, int] = LARGE, **how: Any) -> Iterator[Any]:
    """A page from disk, offline; errors in the console and network requests fail the test."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, offline=True, **how)
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(("file:", "data:")) else problems.append(request.url)
        ),
    )
    page.goto(file.as_uri())
    yield page
    assert problems == []
    context.close()


@pytest.mark.parametrize("name", ["report", "compare"])
@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_the_verdict_is_seen_without_scrolling(
    browser: Any, pages: dict[str, Path], name: str, size: tuple[int, int]
) -> None:
    with opened(browser, pages[name], size) as page:
        box = page.locator(".verdict h1").bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= size[1]
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        if name == "report":
            numbers = page.locator("dl.numbers").bounding_box()
            assert numbers["y"] + numbers["height"] <= size[1]


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_no_section_is_missing_from_the_list_or_cut_off(
    browser: Any, pages: dict[str, Path], size: tuple[int, int]
) -> None:
    with opened(browser, pages["report"], size) as page:
        links = page.locator("nav a")
        titles = page.locator("main > section[id] > h2").all_inner_texts()
        assert set(titles) - {"Not measured"} <= set(links.all_inner_texts())
        for index in range(links.count()):
            box = links.nth(index).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size[0]


def test_the_terms_are_one_click_away(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["report"]) as page:
        assert not page.locator("#terms dl").is_visible()
        page.locator(".verdict a", has_text="What the terms mean").click()
        page.locator("#terms dl").wait_for(state="visible")
        assert "robust accuracy" in page.locator("#terms dl").inner_text()
        assert page.locator("#terms dt").count() >= 5


def test_clicking_a_sample_opens_it(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["report"]) as page:
        first = page.locator("details.case").first
        assert first.locator(".inside").is_visible() is False
        first.locator("summary").click()
        assert first.locator(".inside table").is_visible()
        assert first.locator(".images img").count() >= 3
        assert first.locator(".images img").first.evaluate("i => i.naturalWidth") == 8


def test_samples_are_filtered(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["report"]) as page:
        shown = page.locator("details.case:visible")
        before = shown.count()
        button = page.locator(".filters button").first
        button.click()
        after = shown.count()
        assert 0 < after < before
        assert page.locator(".filters output").inner_text() == f"{after} of {before} shown"
        button.click()
        page.locator(".filters input").fill("Sample 31")
        assert shown.count() == 1


def test_pointer_and_keys_show_the_values_of_a_figure(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["report"]) as page:
        plot = page.locator("#loss-along .plot")
        plot.scroll_into_view_if_needed()
        plot.hover()
        tip = plot.locator(".tip")
        assert tip.locator("span").count() == 2
        page.mouse.move(0, 0)
        plot.focus()
        page.keyboard.press("ArrowRight")
        assert tip.locator("b").inner_text() == "step of the attack on a sample 0"
        page.keyboard.press("ArrowRight")
        assert tip.locator("b").inner_text() == "step of the attack on a sample 1"
        line = page.locator("#loss-along path.line.fooled")
        page.locator("#loss-along .legend button").first.click()
        assert line.is_visible() is False
        plot.locator("button[aria-label='Zoom in']").click()
        assert plot.locator("svg").get_attribute("viewBox").split()[2] == "230"


def test_it_is_complete_without_scripts(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["report"], java_script_enabled=False) as page:
        assert page.locator("figure svg").count() == 10
        assert page.locator("figure svg").first.is_visible()
        assert page.locator(".filters").is_visible() is False
        page.locator("details.case summary").first.click()
        assert page.locator("details.case .inside").first.is_visible()


def test_hostile_names_stay_text(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["hostile"]) as page:
        page.wait_for_timeout(200)
        assert "owned" in page.title()
        assert page.title() != "owned"
        assert visible(HOSTILE.model) in page.locator(".subject").inner_text()
        page.locator("details.case summary").first.click()
        plot = page.locator("#results-by-attempt")
        assert "script" in plot.inner_html()
        assert page.locator("script").count() == 1


def test_no_script_but_ours_runs(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    """The policy holds even where escaping would have failed."""
    text = pages["report"].read_text("utf-8")
    file = tmp_path / "broken.html"
    file.write_text(text.replace("<main", "<script>window.owned=1</script><main", 1), "utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.evaluate("window.owned === undefined")
    assert page.locator(".filters").is_visible()
    context.close()


def test_print_gives_the_figures(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    with opened(browser, pages["report"]) as page:
        page.pdf(path=tmp_path / "report.pdf", format="A4")
        page.emulate_media(media="print")
        assert page.locator("figure svg").count() == 10
        assert page.locator("figure svg").last.is_visible()
        assert page.locator("nav").is_visible() is False
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["report", "compare"])
def test_axe_finds_nothing_serious(
    browser: Any, pages: dict[str, Path], name: str, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # axe is injected from outside, so the policy is off here; the other tests check it.
    with opened(browser, pages[name], color_scheme=scheme, bypass_csp=True) as page:
        if name == "report":
            page.locator("details.case summary").first.click()
        found = Axe().run(page).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        summary = [(v["id"], [node["html"][:160] for node in v["nodes"][:3]]) for v in serious]
        assert summary == []


def test_a_large_report_paints_at_once(browser: Any, large: Run) -> None:
    file = report_files(large).html
    assert file.stat().st_size < 6e6
    with opened(browser, file) as page:
        assert page.evaluate(PAINTED) < FIRST_PAINT
