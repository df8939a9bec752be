"""Several line charts as one SVG that stands alone, two in a row."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from flatguard.reporting.charts import HEIGHT, WIDTH
from flatguard.reporting.figure import Figure

_TITLE = 24.0
_STYLE = """
text{font:11.5px sans-serif;fill:#525a64}.label{font-size:12px;fill:#1d2126}.end{text-anchor:end}
.middle{text-anchor:middle}.title{font-weight:bold;fill:#1d2126}path{fill:none}
.grid{stroke:#dcd9d3}.axis{stroke:#8b929b}.line{stroke:var(--c);stroke-width:2}
.band{fill:var(--c);opacity:.16}.ink{--c:#1d2126}.fooled{--c:#b5471b}.clean{--c:#4c7f86}
"""


def joined(panels: Sequence[Figure], alt: str) -> str:
    """The SVG.

    Args:
        panels: an even number of charts, with their titles.
        alt: a description for readers who cannot see it.
    """
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
    size = f"{2 * WIDTH:g} {(len(panels) + 1) // 2 * (HEIGHT + _TITLE):g}"
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {}" role="img" aria-label="{}">'
    ).format(size, alt)
    style = Markup("<style>{}</style>").format(Markup(_STYLE))
    return str(head + style + Markup("").join(parts) + Markup("</svg>"))
