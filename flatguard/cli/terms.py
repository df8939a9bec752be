"""What the terms of an output mean, at its end, where the output has no page that explains them."""

from __future__ import annotations

import textwrap

from rich.console import Console

from flatguard.reporting.glossary import TERMS


def show_terms(console: Console, *shown: str) -> None:
    """Print a line for each term of these texts, and nothing where they have none."""
    text = " ".join(shown)
    used = [term for term in TERMS if term.occurs_in(text)]
    if not used:
        return
    console.print("\nWhat the terms mean")
    for term in used:
        line = f"{term.name}: {term.meaning}"
        if console.is_terminal:
            line = textwrap.fill(line, max(console.width, 20), subsequent_indent="  ")
        console.print(line, markup=False)
