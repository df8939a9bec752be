"""The command line in a test: how it is called, and what it is called with."""

import shlex
from pathlib import Path

ARCH = str(Path(__file__).with_name("architectures.py"))


CHECKPOINT = [
    "evaluate", "--model", "weights.safetensors", "--arch", f"{ARCH}:tiny", "--mean",
    ".485,.456,.406", "--std", ".229,.224,.225", "--dataset", "data.npz",
]  # fmt: skip


JUDGED = (0, 1, 3)


PGD = ["--attack", "torchattacks:PGD", "--attack-arg", "steps=3", "--eps", "8/255"]


class Result:
    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err


def advised(result: Result) -> list[list[str]]:
    """The commands that an answer says to run next, as a shell takes them apart."""
    start = "next: flatguard "
    lines = [line for line in result.out.splitlines() if line.startswith(start)]
    return [shlex.split(line.removeprefix(start)) for line in lines]
