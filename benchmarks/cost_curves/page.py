"""The plots of docs/performance.md, and its tables between two marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.cost_curves.measure import Measured, Trial
from benchmarks.cost_curves.model import MEMORY, TIME, CostModel, fitted
from benchmarks.panels import joined
from flatguard.reporting.charts import Axis, Series, line_chart
from flatguard.reporting.figure import Figure, FigureText
from flatguard.runs.json_files import write_text

PAGE = "performance.md"
BEGIN, END = "<!-- cost model: begin -->", "<!-- cost model: end -->"
IMAGENET, IMAGENET_VALUES, BATCH = 50_000, 3 * 224**2, 32
ROWS = {"PGD, 20 steps": 22, "AutoAttack standard, where it breaks nothing": 6_900}
"""Images sent forward for each image."""
SPEEDS, GPUS = (500, 2_000, 8_000), (1, 8, 64)

_OF: dict[str, Callable[[Measured], float]] = {
    "examples": lambda run: run.trial.examples,
    "steps": lambda run: run.trial.steps,
    "classes": lambda run: run.trial.classes,
    "size": lambda run: run.trial.size,
    "parameters": lambda run: run.parameters,
    "workers": lambda run: run.trial.workers,
    "batch": lambda run: run.trial.batch,
}
_NAMES = {"size": "height and width of the images", "batch": "batch size"}
_IN_MEMORY = ("examples", "size", "parameters", "batch")
_FIELDS = {"parameters": "width"}


def write_page(runs: Sequence[Measured], held_out: Sequence[Measured], folder: Path) -> None:
    """Fit the model; write the plots into the folder and the tables into the page beside it."""
    model = fitted(runs)
    panels = [_time_panel(name, runs, model) for name in list(_OF)[:6]]
    panels += [_memory_panel(name, runs, model) for name in _IN_MEMORY]
    alt = "processor time and peak memory of runs, measured and by the cost model"
    write_text(folder / "cost-curves.svg", joined(panels, alt))
    page = folder.parent / PAGE
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{tables(model, held_out)}\n\n{END}{after}", "utf-8")


def tables(model: CostModel, held_out: Sequence[Measured]) -> str:
    """The coefficients, the runs that the model was not fitted on, and ImageNet by the model."""
    return "\n\n".join([_coefficients(model), _predictions(model, held_out), _imagenet(model)])


def varied(name: str, runs: Sequence[Measured]) -> list[Measured]:
    """The runs that differ from the base in this respect only, in order."""
    field, base = _FIELDS.get(name, name), Trial()
    others = [other for other in vars(base) if other != field]
    found = [r for r in runs if all(getattr(r.trial, o) == getattr(base, o) for o in others)]
    return sorted(found, key=_OF[name])


def _time_panel(name: str, runs: Sequence[Measured], model: CostModel) -> Figure:
    chosen = varied(name, runs)
    return _panel(
        name, "processor time [s]", chosen, [run.seconds for run in chosen],
        [model.seconds_from_size(run) for run in chosen],
    )  # fmt: skip


def _memory_panel(name: str, runs: Sequence[Measured], model: CostModel) -> Figure:
    chosen = varied(name, runs)
    return _panel(
        name, "peak memory [MB]", chosen, [run.peak_bytes / 1e6 for run in chosen],
        [model.peak_bytes(run) / 1e6 for run in chosen],
    )  # fmt: skip


def _panel(
    name: str, what: str, runs: list[Measured], measured: list[float], by_model: list[float]
) -> Figure:
    x = [float(_OF[name](run)) for run in runs]
    series = [Series("model", "clean", x, by_model), Series("measured", "fooled", x, measured)]
    title = f"{what.partition(' [')[0]}: {_NAMES.get(name, name)}"
    words = FigureText(f"{name}-{what[:4]}", title, title)
    return line_chart(words, Axis(_NAMES.get(name, name)), Axis(what), series)


def _coefficients(model: CostModel) -> str:
    lines = ["| processor time for | µs | memory for | bytes |", "|---|---|---|---|"]
    for index in range(max(len(TIME), len(MEMORY))):
        time, memory = ("", ""), ("", "")
        if index < len(TIME):
            time = (TIME[index], f"{model.time[index] * 1e6:,.4g}")
        if index < len(MEMORY):
            memory = (MEMORY[index], f"{model.memory[index]:,.4g}")
        lines.append(f"| {' | '.join((*time, *memory))} |")
    call, multiplication, activation = (value * 1e6 for value in model.bare)
    lines.append("")
    lines.append(
        f"A bare pass forward and backward of these networks takes {call:.4g} µs a call, "
        f"{multiplication:.3g} µs a multiply-add and {activation:.3g} µs an activation."
    )
    return "\n".join(lines)


def _predictions(model: CostModel, held_out: Sequence[Measured]) -> str:
    head = "| run that the model was not fitted on | measured | by the model | ratio | "
    lines = [head + "MB measured | by the model | ratio |", "|---|---|---|---|---|---|---|"]
    for run in held_out:
        t, seconds, peak = run.trial, model.seconds_from_size(run), model.peak_bytes(run)
        name = (
            f"{t.examples} images, {t.steps} steps, {t.classes} classes, {t.size} × {t.size}, "
            f"{run.parameters:,} parameters, batches of {t.batch}"
        )
        lines.append(
            f"| {name} | {run.seconds:.2f} s | {seconds:.2f} s | {seconds / run.seconds:.2f} | "
            f"{run.peak_bytes / 1e6:.0f} | {peak / 1e6:.0f} | {peak / run.peak_bytes:.2f} |"
        )
    return "\n".join(lines)


def _imagenet(model: CostModel) -> str:
    head = " | ".join(f"{count} GPU{'s' if count > 1 else ''}" for count in GPUS)
    lines = [f"| attack | samples/s of a GPU (given) | {head} |", "|---|---|---|---|---|"]
    for attack, rows in ROWS.items():
        for speed in SPEEDS:
            hours = [imagenet_hours(model, rows, speed, count) for count in GPUS]
            cells = " | ".join(f"{value:,.1f} h" for value in hours)
            lines.append(f"| {attack} | {speed:,} | {cells} |")
    return "\n".join(lines)


def imagenet_hours(model: CostModel, rows: int, speed: float, gpus: int) -> float:
    """Hours of 50,000 images at 224 pixels, with `rows` passes an image.

    Args:
        model: its coefficients of the host: a run, a block, a row, a pixel value of an image.
        rows: images sent forward for each image.
        speed: images a second that one GPU sends forward and backward, recorded.
        gpus: how many work at blocks of their own.
    """
    a_run, a_block, _, a_row, *_ = model.time
    a_value = model.time[6]
    parallel = IMAGENET * (rows * (1.0 / speed + a_row) + a_block / BATCH) / gpus
    return (parallel + a_run + IMAGENET * IMAGENET_VALUES * a_value) / 3600.0
