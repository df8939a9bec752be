"""Merges the shards of one run: blocks and preflight are copied into a new run folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from flatguard.environment.caller import own_process
from flatguard.errors import UsageError
from flatguard.runs.check_evidence import PREFLIGHT, load_probes
from flatguard.runs.layout import BLOCK, BLOCKS, EVIDENCE, PROBE, PROBES, TIMING, committed
from flatguard.runs.publishing import publish, stage, unstage, writing
from flatguard.runs.run import Run, load_run
from flatguard.runs.storage import open_storage
from flatguard.runs.untrusted import check_file
from flatguard.runs.writing import create


@own_process()
def merge(shards: Sequence[Run | str | Path], out: str | Path) -> Run:
    """A new run folder with the blocks of all shards; a block that several have is copied once.

    What preflight measured is taken from the first shard that holds it. The shards do not change.
    `flatguard.resume` adds the blocks and checks that are missing.

    Args:
        shards: runs of the same request, weights, data and versions, or their folders.
        out: the new run folder.

    Raises:
        UsageError: the shards do not belong to one run; names what differs.
        RunFolderError: one is damaged, or the folder exists or cannot be written.
    """
    runs = [shard if isinstance(shard, Run) else load_run(shard) for shard in shards]
    if not runs:
        raise UsageError("expected run folders to merge, got none")
    first, storage = runs[0], open_storage(out)
    for other in runs[1:]:
        _same_run(first, other)
    for run in runs:
        run.verify()
    merged = create(storage, first.manifest)
    for run in runs:
        folders = committed(run.path)
        for block in run.blocks:
            if block.plan.index not in committed(merged.path):
                folder = folders[block.plan.index]
                _copy(folder, (*block.files, BLOCK, TIMING), merged.path / EVIDENCE / BLOCKS)
        probe = load_probes(run).get(PREFLIGHT)
        if probe is not None and PREFLIGHT not in load_probes(merged):
            folder = run.path / EVIDENCE / PROBES / PREFLIGHT
            _copy(folder, (*probe.files, PROBE, TIMING), merged.path / EVIDENCE / PROBES)
    storage.push()
    return load_run(storage)


def _same_run(first: Run, other: Run) -> None:
    if first.manifest.identity == other.manifest.identity:
        if first.manifest.target.answers_like(other.manifest.target.first_answers):
            return
        raise UsageError(
            f"{first.storage} and {other.storage} are not shards of one run: their models answer "
            "differently on the first images"
        )
    one, two = (run.manifest.decisive() for run in (first, other))
    ours = ("request", "target", "data", "attack_args", "versions", "device", "blocks")
    parts = [name for name in ours if one[name] != two[name]]
    differ = [
        f"{part}.{name}"
        for part in parts
        for name in sorted({*one[part], *two[part]} if isinstance(one[part], dict) else ())
        if one[part].get(name) != two[part].get(name)
    ]
    what = ", ".join((differ or parts)[:3])
    raise UsageError(f"{first.storage} and {other.storage} are not shards of one run: {what}")


def _copy(folder: Path, names: Sequence[str], target: Path) -> None:
    """Copy the files that a block or a probe names, and no other file of its folder."""
    run = target.parents[1]
    copy = stage(run, folder.name)
    try:
        with writing(str(run)):
            copy.mkdir(parents=True)
            for name in names:
                check_file(folder / name)
                shutil.copyfile(folder / name, copy / name, follow_symlinks=False)
            publish(copy, target / folder.name)
    finally:
        unstage(copy)
