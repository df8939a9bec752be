"""Plans a run, fills its folder with the blocks that are missing, and takes up what was left."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from flatguard.data.datasets import DataHash, blocks, check_labels
from flatguard.errors import BudgetSpent, FlatguardError, ModelError, UsageError
from flatguard.execution.block import Bench, asked_layers
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.context import EvaluationContext
from flatguard.execution.executors import Executor, InProcess, Work
from flatguard.execution.progress import ProgressReporter
from flatguard.request import derive_seed
from flatguard.runs import store, writing
from flatguard.runs.facts import BlockPlan, DataFacts, Manifest, SampleFailure, TargetFacts
from flatguard.runs.storage import RunStorage, open_storage

VERSIONS_OF = (
    "flatguard", "torch", "torchvision", "torchattacks", "pyautoattack", "autoattack",
    "robustbench", "foolbox", "timm", "numpy", "pandas", "pyarrow",
)  # fmt: skip


@dataclass(frozen=True)
class Shard:
    """Every `count`-th block, from the `number`-th on; numbers begin at 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/8` as a Shard.

        Raises:
            UsageError: it is something else.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UsageError(f"--shard: expected I/N with I from 1 to N, such as 2/8, got {text!r}")
        return cls(int(number), int(count))

    def has(self, block: int) -> bool:
        """Whether a block is one of its."""
        return block % self.count == self.number - 1


def plan(
    context: EvaluationContext,
    storage: RunStorage,
    command: Sequence[str],
    progress: ProgressReporter,
) -> store.Run:
    """Read the data once, and make a run folder with its manifest; nothing is attacked.

    Raises:
        RunFolderError: if the folder exists or cannot be written.
        DataError: from the data, with nothing written.
    """
    writing.check_new(storage)
    return writing.create(storage, _manifest(context, command, progress))


def fill(
    bench: Bench,
    executor: Executor,
    progress: ProgressReporter,
    compute_budget: ComputeBudget,
    shard: Shard | None = None,
    max_failures: int | None = None,
) -> store.Run:
    """Attack the blocks that a run lacks, in any order and by any executor.

    Where the allowance is spent after some blocks, they are the run, and it is incomplete.

    Args:
        bench: the job and its run.
        executor: who attacks.
        progress: receives progress updates.
        compute_budget: what may be spent.
        shard: attack no other blocks.
        max_failures: in place of the request's.

    Raises:
        ModelError, AttackError: from the attack; the blocks done before it and what was recorded
            of this one stay, and the run is incomplete.
        BudgetSpent: before the first block was done.
    """
    storage = bench.run.storage
    writing.sweep(storage.path)
    run = store.load_run(storage)
    here = {block.plan.index for block in run.blocks}
    missing = [p for p in bench.run.manifest.blocks if p.index not in here]
    missing = [p for p in missing if shard is None or shard.has(p.index)]
    if shard is not None and not any(shard.has(p.index) for p in bench.run.manifest.blocks):
        count = len(bench.run.manifest.blocks)
        progress.log(f"part {shard.number} of {shard.count} is empty: the run has {count} blocks")
    limit = bench.context.max_failures if max_failures is None else max_failures
    tally = _Tally(bench, limit, progress, sum(p.stop - p.start for p in missing))
    try:
        tally.count([failure for block in run.blocks for failure in block.failures])
        tally.begin()
        if missing:
            executor.attack(Work(bench, missing, limit, tally.finished, progress, compute_budget))
    except BaseException as error:
        left = store.load_run(storage)
        if isinstance(error, BudgetSpent):
            if left.blocks:
                progress.log(f"{error}; what was finished is judged")
                return left
            error.args = (f"{error} before the first {tally.size} samples were attacked",)
        if (left.blocks or left.failures) and isinstance(error, FlatguardError):
            kept = f"the incomplete run, with what was recorded, is in {storage}"
            error.args = (f"{error}; {kept}",)
        raise
    return store.load_run(storage)


def run(
    context: EvaluationContext,
    out: Path,
    command: Sequence[str],
    progress: ProgressReporter,
    compute_budget: ComputeBudget,
) -> store.Run:
    """A job in a new run folder, attacked in this process and not judged.

    Raises:
        RunFolderError, DataError: from `plan`.
        ModelError, AttackError, BudgetSpent: from `fill`; none of the samples may fail.
    """
    request = context.request.model_copy(update={"checks": "none", "max_failures": 0})
    context = replace(context, request=request)
    layers = asked_layers(context)
    begun = plan(context, open_storage(out), command, progress)
    return fill(Bench(context, begun, layers), InProcess(), progress, compute_budget)


@dataclass
class _Tally:
    """What is done of a run: samples for its observer, failures for its limit."""

    bench: Bench
    limit: int
    progress: ProgressReporter
    left: int
    failures: list[SampleFailure] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.bench.context.block_size

    def begin(self) -> None:
        attack = self.bench.context.attack
        if self.left:
            self.progress.stage(f"attack {attack.info.name}", self.left, attack.expected_calls())

    def finished(self, block: BlockPlan, failures: Sequence[SampleFailure]) -> None:
        self.left -= block.stop - block.start
        self.progress.advanced(block.stop - block.start)
        if self.bench.layers:
            self.begin()  # deeper layers were a stage of their own
        self.count(failures)

    def count(self, failures: Sequence[SampleFailure]) -> None:
        self.failures.extend(failures)
        if len(self.failures) > self.limit:
            first, name = self.failures[0], self.bench.context.target.name
            raise ModelError(
                f"{name} failed on {len(self.failures)} samples, and --max-failures allows "
                f"{self.limit}; the first is sample {first.sample}: {first.error}"
            )


def _manifest(
    context: EvaluationContext,
    command: Sequence[str],
    progress: ProgressReporter,
) -> Manifest:
    head = context.target.head
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(command),
        request=context.request,
        attack_args=context.attack.effective_args(),
        target=TargetFacts(
            name=context.target.name,
            source=context.target.source,
            weights_sha256=context.target.weights_sha256,
            num_classes=context.num_classes,
            head=head.name if head else None,
            head_scale=head.scale if head else None,
            head_reason=context.target.head_reason,
            log_weight_norm_squared=head.log_weight_norm_squared() if head else None,
            notes=context.target.notes,
        ),
        data=_data(context, progress),
        blocks=tuple(_plan(context)),
        versions=versions(),
        device=store.device_facts(context.device),
    ).identified()


def _data(context: EvaluationContext, progress: ProgressReporter) -> DataFacts:
    """Read every image once: what is served is what every later reader must find."""
    progress.stage("read the data", context.count)
    whole, each = DataHash(), []
    for start, batch in blocks(context.dataset, context.count, context.block_size):
        check_labels(batch, context.num_classes, context.dataset.name, start)
        alone = DataHash()
        alone.update(batch)
        each.append(alone.hexdigest())
        whole.update(batch)
        progress.advanced(len(batch))
    return DataFacts(
        name=context.dataset.name,
        size=len(context.dataset),
        sha256=whole.hexdigest(),
        image_shape=tuple(context.dataset.block(0, 1).images.shape[1:]),
        classes=context.dataset.classes,
        blocks=tuple(each),
    )


def _plan(context: EvaluationContext) -> list[BlockPlan]:
    return [
        BlockPlan(
            index=index,
            start=start,
            stop=min(start + context.block_size, context.count),
            seed=derive_seed(context.request.seed, index, context.request.attack),
        )
        for index, start in enumerate(range(0, context.count, context.block_size))
    ]


def versions() -> dict[str, str]:
    """Of flatguard and everything that may change a run's numbers."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def same_software(run: store.Run) -> None:
    """Refuse to go on with a run on other software or another kind of device than it began on.

    The operating system's version may differ, as it does between the nodes of a cluster.

    Raises:
        UsageError: names the first difference.
    """
    before, now = run.manifest.versions, versions()
    for name in sorted({*before, *now} - {"platform"}):
        if before.get(name) != now.get(name):
            raise UsageError(
                f"{run.storage} was begun with {name} {before.get(name)}, and here is "
                f"{now.get(name)}; install what it was begun with, or evaluate anew"
            )
    device, here = run.manifest.device, store.device_facts(torch.device(str(run.request.device)))
    for name in sorted({*device, *here} - {"threads"}):
        if device.get(name) != here.get(name):
            raise UsageError(
                f"{run.storage} was begun on a device with {name} {device.get(name)}, and here is "
                f"{here.get(name)}; its other blocks need the same"
            )
