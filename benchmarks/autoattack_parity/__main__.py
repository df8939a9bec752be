"""`python -m benchmarks.autoattack_parity`: the corrected number against AutoAttack's.

Results are kept as they come, so that a comparison that was stopped goes on. `--again` checks anew
and keeps what AutoAttack found.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.autoattack_parity.measure import by_autoattack, by_checks
from benchmarks.autoattack_parity.networks import CASES
from benchmarks.masking_zoo import networks

RESULTS = Path("reports/autoattack-parity")
ALLOWED = 0.005
"""The corrected accuracy may be this much above AutoAttack's."""


def main() -> int:
    """Measure what is missing and print the table; 1 where a network exceeds what is allowed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoattack_parity")
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--checks", choices=("fast", "standard", "full"), default="standard")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="check anew")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in asked.only:
        why = networks.missing(name if name in networks.REAL else next(iter(networks.REAL)))
        if why is not None and "digits" not in name:
            print(f"{name}: left out, {why}")
            continue
        row = _measured(asked.out / f"{name}.json", name, asked.checks, asked.again)
        rows.append(row)
        print(_line(row, asked.checks), flush=True)
    print("\n" + table(rows, asked.checks))
    return int(any(_gap(row, asked.checks) > ALLOWED for row in rows))


def table(rows: list[dict[str, Any]], checks: str) -> str:
    """The table in Markdown."""
    head = [
        "| network | images | PGD-20 | corrected | AutoAttack | verdict | forwards | and its |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(_line(row, checks) for row in rows)])


def _measured(file: Path, name: str, checks: str, again: bool) -> dict[str, Any]:
    """What is stored of a network, with what was missing."""
    row: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    row |= {"network": name, "images": CASES[name].count}
    if again or checks not in row:
        row[checks] = asdict(by_checks(CASES[name], checks))
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


def _gap(row: dict[str, Any], checks: str) -> float:
    more = len(row[checks]["right"]) - len(row["autoattack"]["right"])
    return more / int(row["images"])


def _line(row: dict[str, Any], checks: str) -> str:
    found, reference, n = row[checks], row["autoattack"], row["images"]
    because = f" by {found['mechanism']}" if found["mechanism"] else ""
    cells = [
        row["network"], n, f"{found['reported'] / n:.1%}", f"{len(found['right']) / n:.1%}",
        f"{len(reference['right']) / n:.1%}", f"{found['verdict']}{because}",
        f"{found['forwards']:,}", f"{reference['forwards']:,}",
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    raise SystemExit(main())
