"""Gives one loader so many inputs; the last line is what became of them, as JSON.

libFuzzer, by way of Atheris, makes the inputs from seeds, led by the lines of flatguard that they
reach. It ends the process at an input that takes too long or too much memory, and keeps that input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import atheris

from benchmarks.usage import peak_bytes

LONGEST_SECONDS, MOST_MEBIBYTES = 20, 4096


class Count:
    """What became of the inputs so far."""

    def __init__(self, load: Any, inputs: int, crashes: Path, name: str):
        self._load, self._inputs, self._crashes, self._name = load, inputs, crashes, name
        self._began, self._kinds = time.perf_counter(), set[str]()
        self.refused = self.accepted = self.crashed = 0

    def __call__(self, data: bytes) -> None:
        """Load one input."""
        from flatguard.errors import FlatguardError, visible

        try:
            self._load(data)
            self.accepted += 1
        except FlatguardError as error:
            lines = str(error).splitlines()
            if len(lines) == 1 and visible(lines[0]) == lines[0]:
                self.refused += 1
            else:
                self._crash(data, error)
        except Exception as error:
            self._crash(data, error)
        if self.refused + self.accepted + self.crashed == self._inputs:
            self._tell()

    def _crash(self, data: bytes, error: Exception) -> None:
        """Keep the first input of each kind."""
        self.crashed += 1
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
        if kind not in self._kinds:
            self._kinds.add(kind)
            self._crashes.mkdir(parents=True, exist_ok=True)
            (self._crashes / f"{self._name}-{kind}").write_bytes(data)
            print(f"{self._name}: {kind}: {error}", file=sys.stderr)

    def _tell(self) -> None:
        told = {
            "inputs": self._inputs, "refused": self.refused, "accepted": self.accepted,
            "crashed": self.crashed, "seconds": time.perf_counter() - self._began,
            "mebibytes": peak_bytes() / 1024**2,
        }  # fmt: skip
        print("\n" + json.dumps(told), flush=True)
        os._exit(0)  # libFuzzer's own alarm would ring while Python shuts down


def main() -> None:
    """Fuzz one loader, by its name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("inputs", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--crashes", type=Path, required=True)
    asked = parser.parse_args()
    with atheris.instrument_imports(include=["flatguard"]):
        from benchmarks.fuzz.loaders import BY_NAME
    warnings.simplefilter("ignore")
    # libFuzzer ends the process itself, and leaves no time to tidy: the caller does.
    folder = Path(tempfile.mkdtemp(dir=asked.crashes.parent))
    (folder / "files").mkdir()
    (folder / "seeds").mkdir()
    harness = BY_NAME[asked.name].ready(folder / "files")
    for index, content in enumerate(harness.seeds):
        harness.load(content)  # a seed that is refused reaches nothing
        (folder / "seeds" / str(index)).write_bytes(content)
    longest = 2 * max(len(content) for content in harness.seeds)
    options = [
        f"-atheris_runs={asked.inputs}", f"-seed={asked.seed}", f"-max_len={longest}",
        f"-timeout={LONGEST_SECONDS}", f"-rss_limit_mb={MOST_MEBIBYTES}", "-print_final_stats=0",
        f"-artifact_prefix={asked.crashes}/{asked.name}-", "-verbosity=0", str(folder / "seeds"),
    ]  # fmt: skip
    atheris.Setup(["fuzz", *options], Count(harness.load, asked.inputs, asked.crashes, asked.name))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
