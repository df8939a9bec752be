"""Progress in a notebook: what a cell's output shows, and silence elsewhere."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from flatguard.execution import notebook_progress
from flatguard.execution.notebook_progress import NotebookProgress, default_progress
from flatguard.execution.progress import Silent


class Cell:
    """A cell's output, as IPython keeps it."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, content: Any, display_id: bool) -> Cell:
        assert display_id
        self.shown.append(content._repr_html_())
        return self

    def update(self, content: Any) -> None:
        self.shown[-1] = content._repr_html_()


@pytest.fixture
def cell() -> Cell:
    return Cell()


def test_one_output_is_updated_in_place(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook_progress, "_EVERY", 0.0)
    progress = NotebookProgress(cell.display)
    progress.log("<b>demo</b>\u202e")
    progress.stage("attack", 10, calls_each=4)
    assert '<progress max="40" value="0">' in cell.shown[0]
    progress.called(6)
    assert '<progress max="40" value="6">' in cell.shown[0]
    progress.advanced(5)
    assert '<progress max="40" value="20"></progress> 5/10 images' in cell.shown[0]
    progress.stage("twins", 3)
    assert '<progress max="3">' in cell.shown[0]  # of unknown extent
    progress.advanced(3)
    assert "<progress" not in cell.shown[0]
    assert "&lt;b&gt;demo&lt;/b&gt;\\u202e" in cell.shown[0]
    assert len(cell.shown) == 1


def test_few_updates_reach_the_browser(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook_progress, "_EVERY", 3600.0)
    progress = NotebookProgress(cell.display)
    progress.stage("attack", 2)
    before = cell.shown[0]
    progress.called(1)
    progress.advanced(1)
    assert cell.shown[0] == before
    progress.advanced(1)  # the last one always does
    assert "<progress" not in cell.shown[0]


def test_silent_outside_of_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert isinstance(default_progress(), Silent)
    for shell in (None, SimpleNamespace(), SimpleNamespace(kernel=None)):
        ipython = SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        assert isinstance(default_progress(), Silent)
