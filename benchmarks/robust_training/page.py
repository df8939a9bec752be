"""`docs/studies/robust-training.md`: its table, drawn from the kept result of `stutz-table1`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.reproduce import KEPT, ROOT
from flatguard.runs.json_files import write_text
from flatguard.studies.result import Result
from flatguard.studies.stutz.checkpoint import Checkpoint
from flatguard.studies.stutz.table import variant_of

PAGE = ROOT / "docs" / "studies" / "robust-training.md"
RESULT = KEPT / "stutz-table1-last.json"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"

COLUMNS: tuple[tuple[str, str, Callable[[Checkpoint], float | None]], ...] = (
    ("clean error", ".1%", lambda c: c.clean_error),
    ("robust error", ".1%", lambda c: c.rerr),
    ("on training samples", ".1%", lambda c: c.training_rerr),
    ("robust loss", ".2f", lambda c: c.rloss),
    ("gap", ".2f", lambda c: c.gap),
    ("flatness", ".2f", lambda c: c.flatness),
    ("on training samples", ".2f", lambda c: c.training_flatness),
    ("worst case", ".3f", lambda c: c.worst),
)


def main() -> None:
    """Put the table into the page."""
    text = PAGE.read_text("utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    rows = Result.model_validate_json(RESULT.read_bytes()).figures["checkpoints"]
    table = drawn([Checkpoint.model_validate(row) for row in rows])
    write_text(PAGE, f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}")


def drawn(checkpoints: Sequence[Checkpoint]) -> str:
    """A row for each variant, from robust to not: the mean over its seeds, ± their deviation."""
    variants: dict[str, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        variants.setdefault(variant_of(checkpoint.run), []).append(checkpoint)
    ordered = sorted(variants.items(), key=lambda item: statistics.mean(c.rerr for c in item[1]))
    lines = [
        f"| variant | seeds | {' | '.join(name for name, _, _ in COLUMNS)} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
    ]
    for variant, seeds in ordered:
        cells = [_cell([value(c) for c in seeds], form) for _, form, value in COLUMNS]
        lines.append(f"| {variant} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 2:
        return "not measured"
    return f"{statistics.mean(known):{form}} ± {statistics.stdev(known):{form}}"


if __name__ == "__main__":
    main()
