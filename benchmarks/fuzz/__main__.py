"""`make fuzz`: every loader of untrusted files against at least 100,000 hostile inputs.

Prints a table: how many were refused in one line, how many accepted, and how many ended otherwise,
in a traceback, a hang of 20 seconds, 4 GiB, or the end of the process. Those inputs are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.fuzz.loaders import BY_NAME, LOADERS, Loader

COLUMNS = ("inputs", "refused", "accepted", "crashed")


def main() -> None:
    """Fuzz all loaders, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(BY_NAME), choices=list(BY_NAME))
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--crashes", type=Path, default=Path("reports/fuzz"))
    asked = parser.parse_args()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("loader", "inputs", "kind errors", "accepted", "crashes", "a second", "MiB"):
        table.add_column(title, justify="left" if title == "loader" else "right")
    total = dict.fromkeys(COLUMNS, 0)
    for loader in LOADERS:
        if loader.name not in asked.only:
            continue
        inputs = max(10, round(loader.inputs * asked.share))
        found = _fuzzed(loader, inputs, asked.seed, asked.crashes)
        for name in COLUMNS:
            total[name] += found[name]
        speed = f"{found['inputs'] / found['seconds']:.0f}" if found["seconds"] else "-"
        counts = [f"{found[name]:,}" for name in COLUMNS]
        print(loader.name, *counts, file=sys.stderr, flush=True)
        table.add_row(loader.name, *counts, speed, f"{found['mebibytes']:.0f}")
    table.add_row("all", *[f"{total[name]:,}" for name in COLUMNS], "", "")
    Console(soft_wrap=True).print(table)
    print(f"seed {asked.seed}; inputs that crashed are in {asked.crashes}")
    sys.exit(1 if total["crashed"] else 0)


def _fuzzed(loader: Loader, inputs: int, seed: int, crashes: Path) -> dict[str, Any]:
    """What one process says; one that says nothing has crashed."""
    crashes.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "crashes"
        kept.mkdir()
        typed = [
            sys.executable, "-m", "benchmarks.fuzz.one", loader.name, str(inputs),
            "--seed", str(seed), "--crashes", str(kept),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "FLATGUARD_OFFLINE": "1"}
        ended = subprocess.run(
            typed, capture_output=True, text=True, errors="replace", env=environment, check=False
        )
        for file in kept.iterdir():
            file.replace(crashes / file.name)
    told = [line for line in ended.stdout.splitlines() if line.startswith('{"inputs"')]
    if told and ended.returncode == 0:
        found: dict[str, Any] = json.loads(told[-1])
        return found
    print(f"{loader.name} ended with {ended.returncode}:\n{ended.stderr[-2000:]}", file=sys.stderr)
    return dict.fromkeys((*COLUMNS, "seconds", "mebibytes"), 0) | {"crashed": 1}


if __name__ == "__main__":
    main()
