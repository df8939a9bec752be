"""What drawing a report costs: 10,000 samples × 100 steps, a million rows, made up.

Seconds and peak resident size are those of a process of its own that does nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import flatguard
from benchmarks.synthetic import Size, make_run
from benchmarks.usage import peak_bytes

MEGABYTE = 1e6


def main() -> None:
    """Print the figures, or draw the one run that the argument names."""
    if len(sys.argv) > 1:
        print(json.dumps(drawn(Path(sys.argv[1]))))
        return
    size = Size()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        flatguard.audit(make_run(path, size))
        command = [sys.executable, "-m", "benchmarks.report", str(path)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = json.loads(output.splitlines()[-1])
    print(
        f"report of {size.samples:,} samples × {size.steps} steps: {found['seconds']:.1f} s, "
        f"{found['worked']:.1f} s of it on a processor, peak "
        f"{found['peak']:.0f} MB, report.html {found['size']:.2f} MB"
    )


def drawn(path: Path) -> dict[str, float]:
    """Draw a run's report in this process."""
    began, worked = time.perf_counter(), time.process_time()
    from flatguard.reporting.report import write_report

    report = write_report(flatguard.load_run(path))
    return {
        "seconds": time.perf_counter() - began,
        "worked": time.process_time() - worked,
        "peak": peak_bytes() / MEGABYTE,
        "size": report.html.stat().st_size / MEGABYTE,
    }


if __name__ == "__main__":
    main()
