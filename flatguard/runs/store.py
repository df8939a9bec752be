"""The run folder: immutable evidence in blocks, and derived files beside it.

    RUN/
      evidence/
        manifest.json              the resolved request, versions, hashes, the list of blocks
        blocks/00000-1a2b3c4d5e6f/ named after its content; formats before 3 have no such ending
          block.json               counts, seed, warnings, SHA-256 of the block's files
          timing.json              seconds; outside the checksums
          samples.parquet          a row per sample: clean, adversarial, robust
          trajectory.parquet       a row per sample and model call
          layers.parquet           a row per sample, layer and point; only with --layers
          adversarial.safetensors  `adversarial`: (n, channels, height, width) float32
          clean.safetensors        `clean`: the same images before, in uint8 where that is exact
        probes/twins/              our own experiments on the target; see `probe_store`
        failed/00000/              a block whose attack raised after its first model call
          failure.json             counts and the error
          trajectory.parquet       what was recorded until then
      summary.json verdict.json    derived; may be thrown away, as may report.*
      spent.json                   only with limits: what was spent, also on what failed; `spending`
      detection.json               derived, too: which kinds of samples a detector flags, its
                                   thresholds and SHA-256; see `detection.flagging.Detection`

The manifest is written before the first block and never again. `writing` gives a block its name
when it is whole, so it is there completely or not at all. A run is complete when every block of
the manifest's list is there. The JSON files of the evidence bear a seal, the SHA-256 of their own
content, and the checksums of the files beside them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ValidationError
from torch import Tensor

from flatguard.environment.system import quoted, replace, sync
from flatguard.errors import RunFolderError, one_line, refused
from flatguard.recording.trajectory import BOOKKEEPING, to_frame, with_names
from flatguard.request import EvaluationRequest
from flatguard.runs.facts import FORMAT_VERSION, BlockFailure, digest
from flatguard.runs.facts import BlockFacts as BlockFacts
from flatguard.runs.facts import BlockPlan as BlockPlan
from flatguard.runs.facts import DataFacts as DataFacts
from flatguard.runs.facts import Manifest as Manifest
from flatguard.runs.facts import TargetFacts as TargetFacts
from flatguard.runs.images import as_floats, load_images
from flatguard.runs.schema import (
    LAYER_COLUMNS,
    check_columns,
    check_samples,
    check_trajectory,
)
from flatguard.runs.storage import RunStorage, open_storage
from flatguard.runs.untrusted import (
    Room,
    check_file,
    is_plain_file,
    is_plain_folder,
    read_text,
)

EVIDENCE, MANIFEST, SUMMARY = "evidence", "manifest.json", "summary.json"
TIMING = "timing.json"
BLOCKS, FAILED = "blocks", "failed"
SAMPLES, TRAJECTORY = "samples.parquet", "trajectory.parquet"
LAYERS = "layers.parquet"
ADVERSARIAL, CLEAN = "adversarial.safetensors", "clean.safetensors"
PLACE = ("sample", "call", "segment")
"""The columns that say where a row of a trajectory belongs."""


def write_text(file: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old text or the new one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # left by a process that died, or a link to lead us astray
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        replace(temporary, file)
        sync(file.parent)
    except OSError as error:
        error.filename = str(file)  # nobody knows the temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sealed(facts: BaseModel) -> str:
    """As JSON with the SHA-256 of its content."""
    content = json.loads(facts.model_dump_json())
    return json.dumps({**content, "seal": digest(content)}, indent=2)


def committed(run: Path) -> dict[int, Path]:
    """The folders of the committed blocks, by number.

    Where a block was committed twice, by devices that do not agree, the first name counts.
    """
    folder = run / EVIDENCE / BLOCKS
    found: dict[int, Path] = {}
    for storage in sorted(folder.iterdir()) if is_plain_folder(folder) else []:
        if re.fullmatch(r"[0-9]{5,9}(-[0-9a-f]{12})?", storage.name) and is_plain_folder(storage):
            found.setdefault(int(storage.name.partition("-")[0]), storage)
    return found


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class Run:
    """A run folder, read only.

    Attributes:
        path: the folder; of a run at an address, its mirror.
        manifest: what was asked for, resolved, with versions and hashes.
        place: where it lies.
        room: what its tables may take in memory.
    """

    def __init__(self, storage: RunStorage, manifest: Manifest):
        self.path, self.manifest, self.storage = storage.path, manifest, storage
        self.room = Room()

    @property
    def request(self) -> EvaluationRequest:
        """The resolved request."""
        return self.manifest.request

    @cached_property
    def blocks(self) -> list[BlockFacts]:
        """The committed blocks, in order."""
        found = []
        for plan in self.manifest.blocks:
            folder = self._places.get(plan.index)
            if folder is not None:
                found.append(self._block(folder, plan))
        return found

    def block(self, plan: BlockPlan) -> BlockFacts:
        """One committed block; the others are not read."""
        return self._block(self._folder(plan.index), plan)

    @cached_property
    def _places(self) -> dict[int, Path]:
        return committed(self.path)

    def _block(self, folder: Path, plan: BlockPlan) -> BlockFacts:
        file = folder / "block.json"
        facts: BlockFacts = parse(BlockFacts, file)
        ending = folder.name.partition("-")[2]
        if ending and not _seal(file).startswith(ending):
            raise RunFolderError(f"{file} is damaged: its checksum does not match")
        if not {SAMPLES, ADVERSARIAL} <= set(facts.files):
            raise RunFolderError(f"{file} is damaged: it has no checksum of its samples")
        if facts.plan != plan or facts.run != self.manifest.identity:
            raise RunFolderError(f"{file} belongs to another run")
        return facts

    @cached_property
    def failures(self) -> list[BlockFailure]:
        """The blocks whose attack raised after its first model call, and was not made good."""
        if not is_plain_folder(self.path / EVIDENCE / FAILED):
            return []
        left = [plan.index for plan in self.manifest.blocks if plan.index not in self._places]
        folders = [self.path / EVIDENCE / FAILED / f"{index:05d}" for index in left]
        return [parse(BlockFailure, f / "failure.json") for f in folders if is_plain_folder(f)]

    @property
    def complete(self) -> bool:
        """Whether every planned block was committed."""
        return len(self.blocks) == len(self.manifest.blocks)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """A row per sample, in data set order: clean and adversarial measurements."""
        table = pd.concat(self._tables(SAMPLES), ignore_index=True)
        return table if "failed" in table else table.assign(failed=False)

    @cached_property
    def trajectory(self) -> pd.DataFrame:
        """A row per sample and model call; the columns are those of `Recorder.trajectory`."""
        if not self.blocks:
            raise RunFolderError(f"{self.path} has no finished block yet")
        table = pd.concat([self.trajectory_of(block) for block in self.blocks], ignore_index=True)
        table["part"] = table["part"].astype("category")  # blocks may know different parts
        return table

    def trajectory_of(self, block: BlockFacts) -> pd.DataFrame:
        """The rows of one block."""
        if TRAJECTORY not in block.files:
            return with_names(self._no_rows(), block.segments)  # the attack never called the model
        file = self._folder(block.plan.index) / TRAJECTORY
        with reading(file):
            rows = check_trajectory(file, self.room.read(file), block.plan)
        return with_names(rows, block.segments)

    def paths(self, *columns: str) -> Iterator[pd.DataFrame]:
        """The attack's own calls, block by block, with a few measured columns only.

        Rows that belong to no sample for certain, and the library's bookkeeping, are left out; a
        sample's rows are in the order of its calls.
        """
        for block in self.blocks:
            file = self._folder(block.plan.index) / TRAJECTORY
            if TRAJECTORY not in block.files:
                continue
            wanted = [*PLACE, *columns]
            with reading(file):
                rows = check_trajectory(file, self.room.read(file, wanted), block.plan, wanted)
            rows = rows[rows["sample"].notna() & (rows["segment"] != BOOKKEEPING)]
            ordered = rows.sort_values(["sample", "call"], kind="stable", ignore_index=True)
            yield ordered.astype({"sample": "int64"})

    def failed_trajectory(self, block: int) -> pd.DataFrame:
        """What was recorded of a block before its attack raised; columns as in `trajectory`.

        Raises:
            RunFolderError: if that block did not fail, or its file is damaged.
        """
        failure = next((f for f in self.failures if f.plan.index == block), None)
        if failure is None:
            failed = [f.plan.index for f in self.failures]
            raise RunFolderError(f"{self.path}: block {block} did not fail; failed blocks {failed}")
        file = self.path / EVIDENCE / FAILED / f"{block:05d}" / TRAJECTORY
        self._compare(file.parent, failure.files)
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
            RunFolderError: if the run did not measure them.
        """
        files = [self._folder(b.plan.index) / LAYERS for b in self.blocks if LAYERS in b.files]
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
                f"{self.storage} has no summary, as the run did not end; flatguard evaluate "
                f"--resume {quoted(self.storage)} goes on"
            )
        with reading(file):
            summary = json.loads(read_text(file))
            if not isinstance(summary, dict):
                raise RunFolderError(f"{file} is damaged: expected names and values")
        return summary

    def adversarial(self, block: int) -> Tensor:
        """One block's adversarial images, `(n, channels, height, width)` float32."""
        return self._images(block, ADVERSARIAL)

    def clean(self, block: int) -> Tensor | None:
        """The same images before the attack; None in a run of format 1, which kept none."""
        facts = next(facts for facts in self.blocks if facts.plan.index == block)
        return self._images(block, CLEAN) if CLEAN in facts.files else None

    def _images(self, block: int, name: str) -> Tensor:
        file, plan = self._folder(block) / name, self.manifest.blocks[block]
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
            file = self._folder(block.plan.index) / TIMING
            with reading(file):
                total += float(json.loads(read_text(file))[stage])
        return total

    def verify(self) -> None:
        """Compare every block's files with their checksums.

        Raises:
            RunFolderError: names the first file that is not what was written.
        """
        for block in self.blocks:
            self._compare(self._folder(block.plan.index), block.files)

    @staticmethod
    def _compare(folder: Path, files: dict[str, str]) -> None:
        for name, expected in files.items():
            with reading(folder / name):
                check_file(folder / name)
                found = sha256(folder / name)
            if found != expected:
                raise RunFolderError(f"{folder / name} is damaged: its checksum does not match")

    def _folder(self, index: int) -> Path:
        return self._places[index]

    def _no_rows(self) -> pd.DataFrame:
        return to_frame([], losses=self.request.losses)

    def _tables(self, name: str) -> list[pd.DataFrame]:
        parts = []
        for block in self.blocks:
            file = self._folder(block.plan.index) / name
            with reading(file):
                table = self.room.read(file)
                check = check_samples if name == SAMPLES else check_trajectory
                parts.append(check(file, table, block.plan))
        if not parts:
            raise RunFolderError(f"{self.path} has no finished block yet")
        return parts

    def __repr__(self) -> str:
        return f"Run({str(self.storage)!r}, blocks {len(self.blocks)}/{len(self.manifest.blocks)})"


def load_run(location: str | Path | RunStorage, *, blocks: bool = True) -> Run:
    """Open a run folder, by its path or by an address such as `s3://bucket/run`.

    Args:
        location: of the folder.
        blocks: fetch what was committed at an address; the manifest comes in any case.

    Raises:
        RunFolderError: no run folder, damaged, or written by a newer flatguard.
    """
    storage = open_storage(location) if isinstance(location, (str, Path)) else location
    storage.pull(blocks)
    file = storage.path / EVIDENCE / MANIFEST
    if not (is_plain_folder(file.parent) and is_plain_file(file)):
        raise RunFolderError(f"{storage} is no run folder: it has no {EVIDENCE}/{MANIFEST}")
    with reading(file):
        version = json.loads(read_text(file)).get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise RunFolderError(
            f"{storage} has format {version}, this flatguard reads up to {FORMAT_VERSION}; "
            "upgrade flatguard"
        )
    return Run(storage, parse(Manifest, file))


def parse(kind: Any, file: Path) -> Any:
    """A JSON file as this kind of pydantic model, or one line that says what is damaged."""
    with reading(file):
        try:
            return kind.model_validate_json(_unsealed(file))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunFolderError(f"{file} is damaged: {where or first['msg']}") from error


def _unsealed(file: Path) -> str:
    """The file's JSON without its seal, which must be right; older formats have none."""
    text = read_text(file)
    content = json.loads(text)
    if not isinstance(content, dict) or "seal" not in content:
        return text
    if content.pop("seal") != digest(content):
        raise RunFolderError(f"{file} is damaged: its checksum does not match")
    return json.dumps(content)


def _seal(file: Path) -> str:
    return str(json.loads(read_text(file)).get("seal"))


@contextlib.contextmanager
def reading(file: Path) -> Any:
    """Whatever goes wrong while a file is read becomes one line that names it."""
    try:
        yield
    except RunFolderError:
        raise
    except Exception as error:  # pyarrow, safetensors and json raise their own
        if refused(error):
            raise RunFolderError(f"{file} cannot be read: {one_line(error)}") from error
        raise RunFolderError(f"{file} is damaged: {one_line(error)}") from error
