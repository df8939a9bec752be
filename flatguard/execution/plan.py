"""Plans a run: reads its data once and writes its manifest with the list of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from flatguard.data.dataset import blocks, check_labels
from flatguard.data.hashing import DataHash
from flatguard.environment.devices import device_facts
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import ProgressReporter
from flatguard.execution.reopening import first_answers
from flatguard.execution.software import versions
from flatguard.request import derive_seed
from flatguard.runs import writing
from flatguard.runs.facts import BlockPlan, DataFacts, Manifest, TargetFacts
from flatguard.runs.run import Run
from flatguard.runs.storage import RunStorage


def plan_run(
    context: EvaluationContext,
    storage: RunStorage,
    command: Sequence[str],
    progress: ProgressReporter,
) -> Run:
    """Read the data once, and make a run folder with its manifest; nothing is attacked.

    Raises:
        RunFolderError: the folder exists or cannot be written.
        DataError: from the data; nothing is written.
        UsageError: `--layers` cannot be measured, or `--engine` does not work; nothing is written.
    """
    writing.check_new(storage)
    context.check_layers()
    context.check_engine()
    return writing.create(storage, _manifest(context, command, progress))


def _manifest(
    context: EvaluationContext,
    command: Sequence[str],
    progress: ProgressReporter,
) -> Manifest:
    head, prompts = context.target.head, context.target.prompts
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
            not_hashed=context.target.not_hashed,
            abstains=context.target.abstains,
            templates=prompts.templates if prompts else (),
            class_texts=prompts.words if prompts else (),
            first_answers=first_answers(context),
            preprocessing=context.target.defaults.preprocessing,
        ),
        data=_data(context, progress),
        blocks=tuple(_blocks(context)),
        versions=versions(),
        device=device_facts(context.device),
    ).identified()


def _data(context: EvaluationContext, progress: ProgressReporter) -> DataFacts:
    """Read every image once: what is served is what every later reader must find."""
    progress.stage("read the data", context.count)
    whole, each = DataHash(), []
    for start, batch in blocks(context.dataset, context.count, context.block_size):
        check_labels(batch, context.num_classes, context.dataset, start)
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
