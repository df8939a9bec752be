"""Plans a run: reads its data once and writes its manifest with the list of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flatguard.data.dataset import blocks, check_labels
from flatguard.data.hashing import DataHash
from flatguard.environment.devices import device_facts
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import ProgressReporter
from flatguard.execution.resources import Resources
from flatguard.execution.software import versions
from flatguard.request import TOLERANCE, derive_seed
from flatguard.runs import writing
from flatguard.runs.facts import BlockPlan, DataFacts, Manifest, TargetFacts
from flatguard.runs.run import Run
from flatguard.runs.storage import RunStorage

_FAILURES = 0.01
"""The share of the samples on which the model may raise by default."""


@dataclass(frozen=True)
class Asked:
    """What a run is asked for beside its request; see `Manifest`."""

    command: Sequence[str] = ()
    checks: str = "none"
    surrogates: Sequence[str] = ()
    tolerance: float = TOLERANCE


def plan_run(
    context: EvaluationContext, storage: RunStorage, asked: Asked, resources: Resources
) -> Run:
    """Read the data once, and make a run folder with its manifest; nothing is attacked.

    Raises:
        RunFolderError: the folder exists or cannot be written.
        DataError: from the data; nothing is written.
        UsageError: deeper layers are requested and cannot be measured; nothing is written.
    """
    writing.check_new(storage)
    context.check_layers()
    return writing.create(storage, _manifest(context, asked, resources))


def _manifest(
    context: EvaluationContext,
    asked: Asked,
    resources: Resources,
) -> Manifest:
    head = context.target.head
    default = int(_FAILURES * context.count)
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(asked.command),
        request=context.request,
        checks=asked.checks,
        surrogates=tuple(asked.surrogates),
        tolerance=asked.tolerance,
        limits=resources.compute_budget.limits,
        max_failures=default if resources.max_failures is None else resources.max_failures,
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
        data=_data(context, resources.progress),
        blocks=tuple(_blocks(context)),
        versions=versions(),
        device=device_facts(context.device),
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


def _blocks(context: EvaluationContext) -> list[BlockPlan]:
    return [
        BlockPlan(
            index=index,
            start=start,
            stop=min(start + context.block_size, context.count),
            seed=derive_seed(context.request.seed, index, context.request.attack),
        )
        for index, start in enumerate(range(0, context.count, context.block_size))
    ]
