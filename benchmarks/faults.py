"""Runs that are killed at random moments, and what is left of them.

A network for scikit-learn's digits is attacked and probed in children of a warm process. Each
child is ended by SIGKILL at a moment that is drawn evenly over an uninterrupted run's time, from
its very beginning to its report. After each kill, what was committed before has to be there, byte
by byte. The run is taken up until it is done, and then has to be the uninterrupted one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from flatguard.evaluation import evaluate, resume
from flatguard.runs.layout import committed

PASSING = ("timing.json", "manifest.json")
"""Files that hold the time; all else of the evidence has to be the same."""


@dataclass
class Tally:
    """What was seen.

    Attributes:
        kills: children that were ended.
        survived: kills after which all that was committed was there and the run went on.
        committed: bytes of committed files that were compared after a kill.
        lost: bytes of them that were gone or other ones.
        runs: runs that were taken up to their end.
        identical: runs whose evidence is that of the uninterrupted run.
    """

    kills: int = 0
    survived: int = 0
    committed: int = 0
    lost: int = 0
    runs: int = 0
    identical: int = 0


def main() -> None:
    """Kill, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = measure(Path(folder), given.kills, given.seed)
    print(f"{tally.survived} of {tally.kills} kills survived, seed {given.seed}")
    print(f"{tally.lost} bytes lost of {tally.committed:,} that were compared after kills")
    print(f"{tally.identical} of {tally.runs} runs byte-identical after resume")
    whole = (tally.survived, tally.lost, tally.identical) == (tally.kills, 0, tally.runs)
    sys.exit(0 if whole else 1)


def measure(folder: Path, kills: int, seed: int) -> Tally:
    """Kill so many children."""
    torch.set_num_threads(1)
    net, data = trained()
    tally, rng = Tally(), random.Random(seed)

    def work(out: Path) -> None:
        if (out / "evidence").is_dir():
            resume(out, model=net, data=data)
        else:
            evaluate(
                net, "apgd-ce", data=data, norm="Linf", eps=0.1, batch_size=8, threads=1,
                attack_args={"n_iter": 5}, out=out,
            )  # fmt: skip

    began = time.perf_counter()
    in_child(lambda: work(folder / "whole"))
    seconds = time.perf_counter() - began
    wanted = evidence(folder / "whole")
    while tally.kills < kills:
        out, seen, tally.runs = folder / f"run{tally.runs}", set[str](), tally.runs + 1
        while tally.kills < kills and not in_child(partial(work, out), rng.uniform(0, seconds)):
            tally.kills += 1
            tally.survived += _is_whole(out, wanted, seen, tally)
        in_child(partial(work, out))
        tally.identical += evidence(out) == wanted
    return tally


def _is_whole(out: Path, wanted: dict[str, bytes], seen: set[str], tally: Tally) -> bool:
    """Whether what is committed, and what was `seen` before, is as in an uninterrupted run."""
    places = [*committed(out).values(), *out.glob("evidence/probes/[!.]*")]
    seen |= {str(place.relative_to(out)) for place in places}
    before = tally.lost
    for name, content in wanted.items():
        if str(Path(name).parent) in seen:
            tally.committed += len(content)
            file = out / name
            same = file.is_file() and file.read_bytes() == content
            tally.lost += 0 if same else len(content)
    return tally.lost == before and all((out / place).is_dir() for place in seen)


def in_child(work: Callable[[], None], seconds: float | None = None) -> bool:
    """Do it in a child, killed after so many seconds; whether it came to its end."""
    if sys.platform == "win32":
        raise SystemExit("this benchmark needs Linux or macOS: it forks")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if seconds is not None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return _ended_well(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return _ended_well(os.waitpid(child, 0)[1])


def _ended_well(status: int) -> bool:
    if sys.platform == "win32":
        raise SystemExit("this benchmark needs Linux or macOS: it forks")
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if os.WEXITSTATUS(status) != 0:
        raise RuntimeError(
            f"a child ended with status {os.WEXITSTATUS(status)}, and was not killed"
        )
    return True


def evidence(run: Path) -> dict[str, bytes]:
    """The files of a run's evidence, by their names in the run."""
    return {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted((run / "evidence").rglob("*"))
        if file.is_file() and file.name not in PASSING
    }


def trained() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A small network for digits, and 40 images that it was not trained on."""
    torch.manual_seed(0)
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(found.target).long()
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        F.cross_entropy(net(images[:1000]), labels[:1000]).backward()
        optimiser.step()
    return net.eval(), (images[1000:1040], labels[1000:1040])


if __name__ == "__main__":
    main()
