"""`flatguard demo`: one network, evaluated three times, to see what flatguard is for."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flatguard.cli.options import Quiet
from flatguard.cli.progress import Watcher
from flatguard.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from flatguard.checks.verdict import Verdict
    from flatguard.reporting.judged_run import JudgedRun
    from flatguard.runs.run import Run

IMAGES = 8
"""Of the demo's 20: enough for intervals that do not meet, and a minute or so of one core."""

_WIDTH = 79
_PGD = "foolbox:LinfPGD"
"""Of a package that every installation has."""

_PGD_ARGS = {"steps": 10, "rel_stepsize": 0.25, "random_start": False}


@dataclass(frozen=True)
class _Step:
    """One evaluation: its folder, what it shows, and its options."""

    folder: str
    title: str
    attack: str
    attack_args: dict[str, Any] = field(default_factory=dict)
    logit_scale: float = 1.0

    @property
    def command(self) -> str:
        """What a user types for the same evaluation."""
        args = (f" --attack-arg {name}={str(v).lower()}" for name, v in self.attack_args.items())
        scale = "" if self.logit_scale == 1.0 else f" --logit-scale {self.logit_scale:g}"
        return (
            f"flatguard evaluate --model demo --attack {self.attack}{''.join(args)}{scale} "
            f"--n-examples {IMAGES}"
        )


STEPS = (
    _Step("strong-attack", "The network, under a strong attack (APGD)", "apgd-ce"),
    _Step(
        "simple-attack",
        "The same network, under a simpler attack (PGD)",
        _PGD,
        _PGD_ARGS,
    ),
    _Step(
        "scaled",
        "The same network with its outputs (logits) × 100, under the same PGD. Every decision "
        "stays as it was; the network is only surer of it.",
        _PGD,
        _PGD_ARGS,
        logit_scale=100.0,
    ),
)


class _OnlyBar(Watcher):
    """Shows the bar; the demo prints its own lines."""

    def log(self, line: str) -> None:
        """Print nothing."""


def command(
    out: Annotated[
        str | None,
        typer.Option(help="The folder of the demo; by default a new one in reports/."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """See what flatguard is for: one network, attacked three times, in about two minutes.

    A network that an attack fools on every image; the same network with its logits × 100, which
    the attack does not fool; and flatguard's verdict on both. It downloads nothing.
    """
    from rich.console import Console

    from flatguard.checks.verdict import verdict_of
    from flatguard.evaluation import evaluate

    console = Console(soft_wrap=True, highlight=False)
    folder = _new_folder(out)
    _say(console, _OPENING.format(images=IMAGES))
    runs = []
    for number, step in enumerate(STEPS, start=1):
        console.print()
        _say(console, step.title, style="bold", first=f"{number}. ", then="   ")
        _say(console, step.command, style="dim", first="   ", then="     ", end=" \\")
        with _OnlyBar(quiet=quiet) as watcher:
            run = evaluate(
                "demo", step.attack, attack_args=step.attack_args, logit_scale=step.logit_scale,
                n_examples=IMAGES, out=folder / step.folder, progress=watcher,
                command=step.command.split(),
            )  # fmt: skip
        _show(console, run, verdict_of(run))
        runs.append(run)
    _conclude(console, runs, folder)


def _new_folder(out: str | None) -> Path:
    """The folder of the demo, before anything is spent on it.

    Raises:
        FlatguardError: it exists, cannot be made, or is no folder of this machine.
    """
    from flatguard.runs.naming import named_folder
    from flatguard.runs.storage import Folder
    from flatguard.runs.writing import check_new

    if out is not None and "://" in out:
        raise UsageError(f"--out: expected a folder of this machine, got {out}")
    folder = named_folder("flatguard", "demo") if out is None else Path(out)
    check_new(Folder(folder))
    return folder


_OPENING = (
    "Can a robust accuracy be believed? A small network for photos is attacked three times on the "
    "same {images} images. An attack changes each image a little (no colour value by more than 8 "
    "of 255 levels) to make the network answer wrongly. Robust accuracy is the share of images on "
    "which the network still answers rightly."
)


def _say(
    console: Console, text: str, style: str = "", first: str = "", then: str = "", end: str = ""
) -> None:
    """Print a paragraph with these indents, at most 79 columns wide; lines that go on end so."""
    width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    lines = textwrap.wrap(
        text, max(width - len(end), 20), initial_indent=first, subsequent_indent=then,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
    console.print(f"{end}\n".join(lines), style=style, markup=False)


def _show(console: Console, run: Run, verdict: Verdict) -> None:
    """The numbers of one evaluation, and flatguard's answer."""
    from rich.text import Text

    from flatguard.cli.answer import COLOURS
    from flatguard.reporting.text import between, percent

    summary = run.summary
    low_to_high = between(summary["robust_interval"])
    survived = int(run.samples["robust"].sum())
    _say(
        console,
        f"clean accuracy {percent(summary['clean_accuracy'])}; robust accuracy "
        f"{percent(verdict.robust_accuracy)} ({survived} of {len(run.samples)} images survive; "
        f"95% interval {low_to_high})",
        first="   ",
        then="   ",
    )
    word, _, rest = verdict.sentence.partition(":")
    console.print(Text("   ") + Text(word, style=f"bold {COLOURS[verdict.verdict]}") + f":{rest}")


def _conclude(console: Console, runs: list[Run], folder: Path) -> None:
    """What the demo shows, in words and as a page of the last two runs side by side."""
    from flatguard.reporting.compare import compare_runs
    from flatguard.reporting.compare_page import compare_page
    from flatguard.reporting.judged_run import JudgedRun
    from flatguard.reporting.paired_path import paired_path
    from flatguard.reporting.report import report_files
    from flatguard.runs.json_files import write_text

    plain, scaled = (JudgedRun.load(run) for run in runs[-2:])
    found = compare_runs(plain.run, scaled.run)
    page = folder / "side-by-side.html"
    write_text(page, compare_page(found, paired_path(plain, scaled, found)))
    if scaled.verdict.mechanism == "saturation":
        console.print("\nWhat this shows", style="bold")
        _say(console, _lesson(scaled))
    report = report_files(scaled.run).html
    console.print(
        f"\nthe last two side by side, with what the attack did to one image:\n   {page}\n"
        "the whole report of the last one, and what its terms mean:\n"
        f"   {report}\n   {report}#terms\n"
        "your own model:\n   flatguard evaluate --help",
        markup=False,
    )


def _lesson(scaled: JudgedRun) -> str:
    """What the evaluation of the scaled network teaches, from what was measured."""
    from flatguard.reporting.text import between, percent

    verdict = scaled.verdict
    survived, fooled = int(scaled.samples["robust"].sum()), len(scaled.evidence.fooled)
    return (
        "The last two evaluations differ in nothing but the factor 100, which changes no "
        f"decision. Yet the robust accuracy is {percent(verdict.robust_accuracy)}: the network is "
        "now so sure of itself that its loss, the error that the attack tries to raise, is flat "
        "(saturation), and the attack finds no direction. flatguard attacked the "
        f"{survived} survivors again through copies that decide alike and are not so sure. It "
        f"found changes of the same size that fool the network itself on {fooled} of {survived}. "
        f"So {percent(verdict.robust_accuracy)} is a fault of the evaluation, not robustness: on "
        f"these images at most {percent(verdict.corrected_robust_accuracy)} is true. For other "
        f"images of the kind, so few samples allow {between(verdict.corrected_interval)} (95% "
        "interval)."
    )
