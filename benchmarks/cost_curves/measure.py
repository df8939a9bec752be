"""One run each in a process of its own: its processor time, its memory, and what decides them.

Time is processor time of this process and of its workers, so that other work on the machine does
not count. What every process loads once is loaded before. Memory is the peak of the process.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn

import flatguard
from benchmarks.usage import peak_bytes
from flatguard.execution.executors import Processes

ATTACK = "torchattacks:PGD"


@dataclass(frozen=True)
class Trial:
    """A run: PGD on a convolutional network, recorded, verified, judged without checks, reported.

    Attributes:
        examples: images.
        steps: of PGD, each a pass forward and backward.
        classes: of the network.
        size: height and width of the images, which have three channels.
        width: channels of the network's first layer; its parameters grow with the square.
        batch: images a block.
        workers: processes; 1 is the process itself.
    """

    examples: int = 32
    steps: int = 10
    classes: int = 10
    size: int = 32
    width: int = 8
    batch: int = 16
    workers: int = 1

    @property
    def blocks(self) -> int:
        """Of the run."""
        return -(-self.examples // self.batch)

    @property
    def rows(self) -> int:
        """Images that are sent forward by the attack, the clean pass and the verification."""
        return self.examples * (self.steps + 2)

    @property
    def pixels(self) -> int:
        """Values of an image."""
        return 3 * self.size**2


@dataclass(frozen=True)
class Measured:
    """What a trial took.

    Attributes:
        trial: what was run.
        parameters: of the network.
        multiplications: multiply-adds of one image's forward pass, in convolutions and the head.
        activations: values that the network's layers return for an image.
        pass_seconds: processor time of one image in a bare pass forward and backward.
        seconds: processor time of the whole run, with its workers.
        peak_bytes: of the process; 0 where workers did the work.
    """

    trial: Trial
    parameters: int
    multiplications: int
    activations: int
    pass_seconds: float
    seconds: float
    peak_bytes: int


def measured(trials: Sequence[Trial]) -> Iterator[Measured]:
    """Run each trial in a process of its own, which begins with all libraries loaded."""
    if sys.platform == "win32":
        raise SystemExit("this benchmark needs Linux or macOS")
    torch.set_num_threads(1)
    _evaluate(Trial(examples=4, steps=1, batch=4), Network(4, 10).eval())
    context = multiprocessing.get_context("fork")
    for trial in trials:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(trial, sender))
        process.start()
        sender.close()
        yield from_json(receiver.recv())
        process.join()


def _send(trial: Trial, sender: Connection) -> None:
    sender.send(json.dumps(asdict(run(trial))))


def from_json(text: str) -> Measured:
    """What `to_json` wrote."""
    content = json.loads(text)
    return Measured(Trial(**content.pop("trial")), **content)


class Network(nn.Module):
    """Two convolutions, a mean over the image, and a head."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        hidden = self.second(self.first(images).relu()).relu()
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


def run(trial: Trial) -> Measured:
    """A trial in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Network(trial.width, trial.classes).eval()
    multiplications, activations = _size_of(network, trial)
    pass_seconds = _pass_seconds(network, trial)
    began = _processor_seconds()
    _evaluate(trial, network)
    seconds = _processor_seconds() - began
    return Measured(
        trial=trial,
        parameters=sum(weight.numel() for weight in network.parameters()),
        multiplications=multiplications,
        activations=activations,
        pass_seconds=pass_seconds,
        seconds=seconds,
        peak_bytes=peak_bytes() if trial.workers == 1 else 0,
    )


def _evaluate(trial: Trial, network: Network) -> None:
    images = torch.rand(trial.examples, 3, trial.size, trial.size)
    with torch.no_grad():
        labels = torch.cat([network(part).argmax(1) for part in images.split(trial.batch)])
    with tempfile.TemporaryDirectory() as folder:
        flatguard.evaluate(
            network, ATTACK, data=(images, labels), norm="Linf", eps="2/255",
            attack_args={"steps": trial.steps}, n_examples=trial.examples, batch_size=trial.batch,
            threads=1, checks="none", out=Path(folder) / "run",
            executor=Processes(trial.workers) if trial.workers > 1 else None,
        )  # fmt: skip


def _pass_seconds(network: Network, trial: Trial, repeats: int = 5) -> float:
    images = torch.rand(trial.batch, 3, trial.size, trial.size)
    times = []
    for _ in range(repeats + 1):
        began = time.process_time()
        inputs = images.clone().requires_grad_()
        torch.autograd.grad(network(inputs).logsumexp(1).sum(), inputs)
        times.append(time.process_time() - began)
    return min(times[1:]) / trial.batch


def _size_of(network: Network, trial: Trial) -> tuple[int, int]:
    """Multiply-adds and returned values of one image."""
    found = {"multiplications": 0, "activations": 0}

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight: Tensor = layer.weight  # type: ignore[assignment]
        found["multiplications"] += weight.numel() * output[0, 0].numel()
        found["activations"] += output[0].numel()

    handles = [layer.register_forward_hook(hook) for layer in network.children()]
    with torch.no_grad():
        network(torch.rand(1, 3, trial.size, trial.size))
    for handle in handles:
        handle.remove()
    return found["multiplications"], found["activations"]


def _processor_seconds() -> float:
    if sys.platform == "win32":
        raise SystemExit("this benchmark needs Linux or macOS")
    import resource

    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
