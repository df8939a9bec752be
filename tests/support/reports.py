"""Judged runs to draw reports of, made up in a second."""

from __future__ import annotations

import sys
from pathlib import Path

import flatguard
from flatguard.runs.run import Run

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.synthetic import Names, Size, make_run

SMALL = Size(samples=60, steps=12, block=25, side=8)

HOSTILE = Names(
    model="<script>document.title='owned'</script>\"'`|--> ]]> \u202egnp.exe\u0007",
    data="</style><img src=x onerror=document.title='owned'>.npz",
    classes=(
        "<b onmouseover=document.title='owned'>cat</b>", "</script><script>document.title='owned'",
        "dog\u2066\u2069", "a|b", "[x](https://example.org)", "@everyone", "&lt;", "`code`", "#1",
        "\x00",
    ),
    twin="</text></svg><script>document.title='owned'</script>",
)  # fmt: skip


def judged(path: Path, size: Size = SMALL, names: Names = Names(), seed: int = 0) -> Run:  # noqa: B008
    run = make_run(path, size, names, seed)
    flatguard.audit(run)
    return run
