"""`python -m benchmarks.autoattack_parity`: the corrected number against AutoAttack's.

`--cascade` compares the cascade instead, without checks. Results are kept as they come, so that a
comparison that was stopped goes on. `--again` measures anew and keeps what AutoAttack found.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.autoattack_parity.measure import by_autoattack, by_cascade, by_checks
from benchmarks.autoattack_parity.networks import CASES
from benchmarks.masking_zoo import networks

RESULTS = Path("reports/autoattack-parity")
_CHECKS = "network", "images", "PGD-20", "corrected", "AutoAttack", "verdict", "forwards", "and its"
_CASCADE = (
    "network", "images", "cascade", "AutoAttack", "warned", "passes", "of its", "seconds", "of its",
)  # fmt: skip
ALLOWED = 0.005
"""The corrected accuracy may be this much above AutoAttack's."""


def main() -> int:
    """Measure what is missing and print the table; 1 where a network exceeds what is allowed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoattack_parity")
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), default=list(CASES))
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--checks", choices=("fast", "standard", "full"), default="standard")
    group.add_argument("--cascade", action="store_true", help="compare the cascade")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="measure anew")
    asked = parser.parse_args()
    of = "cascade" if asked.cascade else asked.checks
    torch.set_num_threads(1)
    rows = []
    for name in asked.only:
        why = networks.missing(name if name in networks.REAL else next(iter(networks.REAL)))
        if why is not None and "digits" not in name:
            print(f"{name}: left out, {why}")
            continue
        row = _measured(asked.out / f"{name}.json", name, of, asked.again)
        rows.append(row)
        print(_line(row, of), flush=True)
    print("\n" + table(rows, of))
    return int(any(_gap(row, of) > ALLOWED for row in rows))


def table(rows: list[dict[str, Any]], of: str) -> str:
    """The table in Markdown."""
    columns = _CASCADE if of == "cascade" else _CHECKS
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*head, *(_line(row, of) for row in rows)])


def _measured(file: Path, name: str, of: str, again: bool) -> dict[str, Any]:
    """What is stored of a network, with what was missing."""
    row: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    row |= {"network": name, "images": CASES[name].count}
    if again or of not in row:
        case = CASES[name]
        row[of] = asdict(by_cascade(case) if of == "cascade" else by_checks(case, of))
        _write(file, row)
    if "autoattack" not in row:
        row["autoattack"] = asdict(by_autoattack(CASES[name]))
        _write(file, row)
    return row


def _write(file: Path, row: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(row) + "\n", "utf-8")
    part.replace(file)


def _gap(row: dict[str, Any], of: str) -> float:
    more = len(row[of]["right"]) - len(row["autoattack"]["right"])
    return more / int(row["images"])


def _line(row: dict[str, Any], of: str) -> str:
    cells = _cascade_cells(row) if of == "cascade" else _checked_cells(row, row[of])
    return f"| {' | '.join(map(str, cells))} |"


def _checked_cells(row: dict[str, Any], found: dict[str, Any]) -> list[Any]:
    reference, n = row["autoattack"], row["images"]
    because = f" by {found['mechanism']}" if found["mechanism"] else ""
    return [
        row["network"], n, f"{found['reported'] / n:.1%}", f"{len(found['right']) / n:.1%}",
        f"{len(reference['right']) / n:.1%}", f"{found['verdict']}{because}",
        f"{found['forwards']:,}", f"{reference['forwards']:,}",
    ]  # fmt: skip


def _cascade_cells(row: dict[str, Any]) -> list[Any]:
    found, reference, n = row["cascade"], row["autoattack"], row["images"]
    passes, its = (each["forwards"] + each["backwards"] for each in (found, reference))
    return [
        row["network"], n, f"{len(found['right']) / n:.1%}", f"{len(reference['right']) / n:.1%}",
        "yes" if found["warned"] else "no", f"{passes:,}", f"{passes / its:.2%}",
        f"{found['seconds']:.1f}", f"{found['seconds'] / reference['seconds']:.1%}",
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
