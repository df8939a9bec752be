"""Figure 15 of Walter et al. from a kept result, as an SVG that stands alone.

Above, the median and the middle half of log κ and of the loss over the prompts; below, the same of
the examples that most clearly get sharper first and flatter then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from flatguard.reporting.charts import HEIGHT, WIDTH, Axis, Band, Series, line_chart
from flatguard.reporting.figure import Figure, FigureText, Tone
from flatguard.runs.json_files import write_text
from flatguard.studies.result import Result

_TITLE = 24.0
_TONES: tuple[Tone, ...] = ("ink", "fooled", "clean")
_STEP = Axis("step of the attack")
_STYLE = """
text{font:11.5px sans-serif;fill:#525a64}.label{font-size:12px;fill:#1d2126}.end{text-anchor:end}
.middle{text-anchor:middle}.title{font-weight:bold;fill:#1d2126}path{fill:none}
.grid{stroke:#dcd9d3}.axis{stroke:#8b929b}.line{stroke:var(--c);stroke-width:2}
.band{fill:var(--c);opacity:.16}.ink{--c:#1d2126}.fooled{--c:#b5471b}.clean{--c:#4c7f86}
"""


def draw(result: Result, file: Path) -> None:
    """Write the four panels of a result of `walter-fig15` to a file."""
    panels = [
        *(_median(name, result.figures[key]) for key, name in _NAMES.items()),
        *(_examples(name, key, result.figures["examples"]) for key, name in _NAMES.items()),
    ]
    write_text(file, _joined(panels, ", ".join(model.name for model in result.models)))


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


def _joined(panels: list[Figure], model: str) -> str:
    parts = []
    for number, panel in enumerate(panels):
        x, y = WIDTH * (number % 2), (HEIGHT + _TITLE) * (number // 2)
        parts.append(
            Markup('<text class="title" x="{}" y="{}">{}</text>').format(
                x + 60, y + 16, panel.text.title
            )
        )
        place = Markup('<svg x="{}" y="{}" width="{}" height="{}" ').format(
            x, y + _TITLE, WIDTH, HEIGHT
        )
        parts.append(Markup(str(panel.image).replace("<svg ", str(place), 1)))
    size = f"{2 * WIDTH:g} {2 * (HEIGHT + _TITLE):g}"
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {}" role="img" aria-label="{}">'
    ).format(size, f"log κ and loss along GCG on {model}")
    style = Markup("<style>{}</style>").format(Markup(_STYLE))
    return str(head + style + Markup("").join(parts) + Markup("</svg>"))
