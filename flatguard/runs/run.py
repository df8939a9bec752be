"""Opens a run folder, and reads its evidence: `load_run` and `Run`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from flatguard.environment.system import quoted
from flatguard.errors import RunFolderError
from flatguard.geometry.measures import SharpnessMeasure, measure_in
from flatguard.recording.mistakes import KeptMistakes
from flatguard.recording.trajectory import BOOKKEEPING, to_frame, with_names
from flatguard.request import EvaluationRequest
from flatguard.runs.checksums import compare
from flatguard.runs.facts import (
    FORMAT_VERSION,
    BlockFacts,
    BlockFailure,
    BlockPlan,
    Manifest,
    Timing,
)
from flatguard.runs.images import as_floats, load_images, load_mistakes
from flatguard.runs.json_files import read_sealed, reading
from flatguard.runs.kept_tables import KeptTables
from flatguard.runs.layout import (
    ADVERSARIAL,
    BLOCK,
    CLEAN,
    EVIDENCE,
    FAILED,
    FAILURE,
    LAYERS,
    MANIFEST,
    MISTAKES,
    PROMPTS,
    SAMPLES,
    SUMMARY,
    TIMING,
    TRAJECTORY,
    committed,
)
from flatguard.runs.schema import (
    LAYER_COLUMNS,
    check_columns,
    check_samples,
    check_trajectory,
)
from flatguard.runs.storage import RunStorage, open_storage
from flatguard.runs.untrusted import Room, is_plain_file, is_plain_folder, read_text

_POSITION = ("sample", "call", "segment")
"""The columns of a trajectory that say which call of which sample a row is about."""


class Run:
    """A run folder, read only.

    Attributes:
        path: the folder; of a run at an address, its local mirror.
        manifest: the resolved request, with versions and hashes.
        storage: where the folder is: on a disk or at an address.
        room: limits the memory that its tables take.
        kept: tables that were read, for their next reader.
    """

    def __init__(self, storage: RunStorage, manifest: Manifest):
        self.path, self.manifest, self.storage = storage.path, manifest, storage
        self.room = Room()
        self.kept = KeptTables()

    @property
    def request(self) -> EvaluationRequest:
        """The resolved request."""
        return self.manifest.request

    @cached_property
    def blocks(self) -> list[BlockFacts]:
        """The committed blocks, in order."""
        plans = [plan for plan in self.manifest.blocks if plan.index in self._folders]
        return [self.block(plan) for plan in plans]

    def block(self, plan: BlockPlan) -> BlockFacts:
        """One committed block; the others are not read."""
        folder = self._folders[plan.index]
        file = folder / BLOCK
        facts = read_sealed(BlockFacts, file, seal_begins=folder.name.partition("-")[2])
        if not {SAMPLES, ADVERSARIAL, CLEAN} <= set(facts.files):
            raise RunFolderError(f"{file} is damaged: it has no checksum of its samples")
        if facts.plan != plan or facts.run != self.manifest.identity:
            raise RunFolderError(f"{file} belongs to another run")
        return facts

    @cached_property
    def _folders(self) -> dict[int, Path]:
        return committed(self.path)

    @cached_property
    def failures(self) -> list[BlockFailure]:
        """The failed blocks that were not attacked again successfully.

        The attack of a failed block raised after its first model call.
        """
        if not is_plain_folder(self.path / EVIDENCE / FAILED):
            return []
        left = [plan.index for plan in self.manifest.blocks if plan.index not in self._folders]
        folders = [self.path / EVIDENCE / FAILED / f"{index:05d}" for index in left]
        return [read_sealed(BlockFailure, f / FAILURE) for f in folders if is_plain_folder(f)]

    @property
    def complete(self) -> bool:
        """Whether every planned block was committed."""
        return len(self.blocks) == len(self.manifest.blocks)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """A row per sample, in data set order: clean and adversarial measurements."""
        tables = []
        for block in self._finished():
            file = self._folders[block.plan.index] / SAMPLES
            with reading(file):
                tables.append(check_samples(file, self.room.read(file), block.plan))
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def trajectory(self) -> pd.DataFrame:
        """A row per sample and model call; the columns are those of `Recorder.trajectory`."""
        tables = [self.trajectory_of(block) for block in self._finished()]
        table = pd.concat(tables, ignore_index=True)
        table["part"] = table["part"].astype("category")  # blocks may have different parts
        return table

    def _finished(self) -> list[BlockFacts]:
        if not self.blocks:
            raise RunFolderError(f"{self.path} has no finished block yet")
        return self.blocks

    def trajectory_of(self, block: BlockFacts) -> pd.DataFrame:
        """The rows of one block."""
        if TRAJECTORY not in block.files:
            return with_names(self._no_rows(), block.segments)  # the attack never called the model
        file = self._folders[block.plan.index] / TRAJECTORY
        with reading(file):
            rows = check_trajectory(file, self.room.read(file), block.plan)
        return with_names(rows, block.segments)

    def paths(self, *columns: str) -> Iterator[pd.DataFrame]:
        """The attack's own calls, block by block, with these measured columns only.

        Rows that were not assigned to a sample, and the library's bookkeeping calls, are left out.
        The rows of a sample are in the order of its calls.
        """
        for block in self.blocks:
            if TRAJECTORY not in block.files:
                continue
            file = self._folders[block.plan.index] / TRAJECTORY
            wanted = [*_POSITION, *columns]
            with reading(file):
                rows = check_trajectory(file, self.room.read(file, wanted), block.plan, wanted)
            rows = rows[rows["sample"].notna() & (rows["segment"] != BOOKKEEPING)]
            ordered = rows.sort_values(["sample", "call"], kind="stable", ignore_index=True)
            yield ordered.astype({"sample": "int64"})

    def failed_trajectory(self, block: int) -> pd.DataFrame:
        """The rows of a block that were recorded before its attack raised; see `trajectory`.

        Raises:
            RunFolderError: that block did not fail, or its file is damaged.
        """
        failure = next((f for f in self.failures if f.plan.index == block), None)
        if failure is None:
            failed = [f.plan.index for f in self.failures]
            raise RunFolderError(f"{self.path}: block {block} did not fail; failed blocks {failed}")
        file = self.path / EVIDENCE / FAILED / f"{block:05d}" / TRAJECTORY
        compare(file.parent, failure.files)
        if not is_plain_file(file):
            return with_names(self._no_rows(), failure.segments)
        with reading(file):
            rows = check_trajectory(file, self.room.read(file), failure.plan)
        return with_names(rows, failure.segments)

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Relative sharpness of deeper layers: a row per sample, layer, point and method.

        Columns: sample, layer, depth (0 is the head), point (`clean`, `attack`, `adversarial`),
        call (of an `attack` point), kappa, standard_error, method, matvecs, repeats.

        Raises:
            RunFolderError: the run did not measure them.
        """
        files = [self._folders[b.plan.index] / LAYERS for b in self.blocks if LAYERS in b.files]
        if not files:
            raise RunFolderError(f"{self.path} has no deeper layers; ask for them with --layers")
        parts = []
        for file in files:
            with reading(file):
                parts.append(check_columns(file, self.room.read(file), LAYER_COLUMNS))
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The derived numbers, as `flatguard evaluate --json` prints them."""
        file = self.path / SUMMARY
        if not is_plain_file(file):
            raise RunFolderError(
                f"{self.storage} has no summary, as the run did not end; "
                f"flatguard resume {quoted(self.storage)}{self.request.consent} goes on"
            )
        with reading(file):
            summary = json.loads(read_text(file))
            if not isinstance(summary, dict):
                raise RunFolderError(f"{file} is damaged: expected names and values")
        return summary

    def adversarial(self, block: int) -> Tensor:
        """One block's adversarial images, `(n, channels, height, width)` float32."""
        return self._images(block, ADVERSARIAL)

    def clean(self, block: int) -> Tensor:
        """The same images before the attack."""
        return self._images(block, CLEAN)

    def mistakes(self, block: int) -> KeptMistakes | None:
        """What one block's attack passed through on samples that survived it; None if nothing."""
        file, plan = self._folders[block] / MISTAKES, self.manifest.blocks[block]
        if not is_plain_file(file):
            return None
        with reading(file):
            kept = load_mistakes(file)
        inside = (kept.sample >= plan.start) & (kept.sample < plan.stop)
        if kept.images.shape[1:] != self.manifest.data.image_shape or not bool(inside.all()):
            raise RunFolderError(f"{file} is damaged: it is not about samples of this block")
        return kept

    def _images(self, block: int, name: str) -> Tensor:
        file, plan = self._folders[block] / name, self.manifest.blocks[block]
        with reading(file):
            images = as_floats(load_images(file))
        expected = (plan.stop - plan.start, *self.manifest.data.image_shape)
        if tuple(images.shape) != expected:
            raise RunFolderError(f"{file} is damaged: {tuple(images.shape)} for {expected}")
        return images

    def adversarial_sha256(self) -> str:
        """SHA-256 over all adversarial images: float32 NCHW bytes in data set order."""
        return self._adversarial_sha256

    @cached_property
    def _adversarial_sha256(self) -> str:
        digest = hashlib.sha256()
        for block in self.blocks:
            digest.update(self.adversarial(block.plan.index).numpy().tobytes())
        return digest.hexdigest()

    def seconds(self, stage: str) -> float:
        """The seconds that a stage took, over all blocks."""
        total = 0.0
        for block in self.blocks:
            file = self._folders[block.plan.index] / TIMING
            with reading(file):
                total += read_sealed(Timing, file).seconds[stage]
        return total

    def verify(self) -> None:
        """Compare every block's files with their checksums.

        Raises:
            RunFolderError: names the first file that differs.
        """
        for block in self.blocks:
            folder = self._folders[block.plan.index]
            compare(folder, block.files)
            read_sealed(Timing, folder / TIMING)

    def _no_rows(self) -> pd.DataFrame:
        has_head = self.manifest.target.head is not None
        return to_frame([], losses=self.request.losses, has_head=has_head)

    @cached_property
    def sharpness(self) -> SharpnessMeasure:
        """The measure of sharpness that the run holds: κ, or logit sharpness without a head."""
        return measure_in(self.samples.columns)

    def _repr_html_(self) -> str:
        """In a notebook: the verdict, the numbers with their intervals, the figure."""
        from flatguard.reporting.notebook import run_html

        return run_html(self)

    def __repr__(self) -> str:
        return f"Run({str(self.storage)!r}, blocks {len(self.blocks)}/{len(self.manifest.blocks)})"


def load_run(location: str | Path | RunStorage, *, blocks: bool = True) -> Run:
    """Open a run folder, by its path or by an address such as `s3://bucket/run`.

    Args:
        location: of the folder.
        blocks: also fetch the committed blocks from an address; the manifest is always fetched.

    Raises:
        RunFolderError: this is no run folder, it is damaged, or it has another format.
    """
    storage = open_storage(location) if isinstance(location, (str, Path)) else location
    storage.pull(blocks)
    file = storage.path / EVIDENCE / MANIFEST
    if not (is_plain_folder(file.parent) and is_plain_file(file)):
        if is_plain_folder(file.parent) and (file.parent / PROMPTS).exists():
            raise RunFolderError(
                f"{storage} is a run on the prompts of a language model: expected one on images"
            )
        raise RunFolderError(f"{storage} is no run folder: it has no {EVIDENCE}/{MANIFEST}")
    with reading(file):
        version = json.loads(read_text(file)).get("format_version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        advice = "upgrade flatguard" if newer else "evaluate again"
        raise RunFolderError(
            f"{storage} has format {version}, this flatguard reads format {FORMAT_VERSION}; "
            f"{advice}"
        )
    return Run(storage, read_sealed(Manifest, file))
