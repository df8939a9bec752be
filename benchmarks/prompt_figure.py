"""Figure 15 of Walter et al. from a kept result, as an SVG that stands alone.

Above, the median and the middle half of log κ and of the loss over the prompts; below, the same of
the examples that most clearly get sharper first and flatter then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.panels import joined
from flatguard.reporting.charts import Axis, Band, Series, line_chart
from flatguard.reporting.figure import Figure, FigureText, Tone
from flatguard.runs.json_files import write_text
from flatguard.studies.result import Result

_TONES: tuple[Tone, ...] = ("ink", "fooled", "clean")
_STEP = Axis("step of the attack")


def draw(result: Result, file: Path) -> None:
    """Write the four panels of a result of `walter-fig15` to a file."""
    panels = [
        *(_median(name, result.figures[key]) for key, name in _NAMES.items()),
        *(_examples(name, key, result.figures["examples"]) for key, name in _NAMES.items()),
    ]
    models = ", ".join(model.name for model in result.models)
    write_text(file, joined(panels, f"log κ and loss along GCG on {models}"))


_NAMES = {"log_kappa": "log κ", "loss": "loss"}


def _median(name: str, quantiles: list[list[float]]) -> Figure:
    _, low, middle, high, _ = quantiles
    x = [float(step) for step in range(len(middle))]
    series = Series(f"median {name}", "ink", x, middle, (Band(low, high),))
    return line_chart(FigureText(name, f"median {name}", name), _STEP, Axis(name), [series])


def _examples(name: str, key: str, examples: list[dict[str, Any]]) -> Figure:
    series = [
        Series(one["prompt"], tone, [float(step) for step in range(len(one[key]))], one[key])
        for one, tone in zip(examples, _TONES, strict=False)
    ]
    return line_chart(FigureText(key, f"{name} of examples", name), _STEP, Axis(name), series)
