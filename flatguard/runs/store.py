"""The run folder: immutable evidence in blocks, and derived files beside it.

    RUN/
      evidence/
        manifest.json              the resolved spec, versions, hashes, the list of blocks
        blocks/00000/
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
      detection.json               derived, too: which kinds of samples a detector flags, its
                                   thresholds and SHA-256; see `detection.flagged.Detection`

The manifest is written before the first block and never again. A block is written under a
temporary name and renamed when it is whole, so it is there completely or not at all. A run
is complete when every block of the manifest's list is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import ValidationError
from torch import Tensor

from flatguard.errors import RunFolderError, one_line
from flatguard.recording.trajectory import BOOKKEEPING, to_frame, with_names
from flatguard.runs.facts import FORMAT_VERSION, BlockFailure
from flatguard.runs.facts import BlockFacts as BlockFacts
from flatguard.runs.facts import BlockPlan as BlockPlan
from flatguard.runs.facts import DataFacts as DataFacts
from flatguard.runs.facts import Manifest as Manifest
from flatguard.runs.facts import TargetFacts as TargetFacts
from flatguard.runs.images import as_bytes, as_floats, load_images, save_images
from flatguard.runs.schema import (
    LAYER_COLUMNS,
    check_columns,
    check_samples,
    check_trajectory,
)
from flatguard.runs.spec import RunSpec
from flatguard.runs.untrusted import (
    Room,
    check_file,
    is_plain_file,
    is_plain_folder,
    read_text,
)

EVIDENCE, SUMMARY = "evidence", "summary.json"
BLOCKS, FAILED = "blocks", "failed"
SAMPLES, TRAJECTORY = "samples.parquet", "trajectory.parquet"
LAYERS = "layers.parquet"
ADVERSARIAL, CLEAN = "adversarial.safetensors", "clean.safetensors"
PLACE = ("sample", "call", "segment")
"""The columns that say where a row of a trajectory belongs."""


def check_new(path: Path) -> None:
    """Refuse a run folder that exists or cannot be made; writes nothing that stays.

    Raises:
        RunFolderError: with what to do.
    """
    if path.exists():
        raise RunFolderError(f"{path} exists already; name another folder with --out")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".flatguard-"):
            pass
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {parent}: {error.strerror}; name another folder with --out"
        ) from error


def create(path: Path, manifest: Manifest) -> None:
    """Make the run folder with its manifest; from here on the spec is fixed."""
    check_new(path)
    try:
        (path / EVIDENCE / BLOCKS).mkdir(parents=True)
        write_text(path / EVIDENCE / "manifest.json", manifest.model_dump_json(indent=2))
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}") from error


def keep_recorded(path: Path) -> bool:
    """Whether a run that did not end holds anything; if it does not, the folder goes."""
    run = load_run(path)
    if run.blocks or run.failures:
        return True
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # only if that leaves it empty
    return False


class BlockWriter:
    """Writes one block under a temporary name, and nothing stays but what is renamed.

    `commit` does so for a whole block, `keep_failure` for one whose attack raised. The trajectory
    goes to disk in row groups while the attack runs.
    """

    def __init__(self, run: Path, index: int):
        self._final = run / EVIDENCE / BLOCKS / f"{index:05d}"
        self._folder = self._final.with_name(f".{self._final.name}.{os.getpid()}")
        self._parquet: Any = None

    def __enter__(self) -> BlockWriter:
        try:
            self._folder.mkdir()
        except OSError as error:
            raise RunFolderError(f"cannot write block {self._final}: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def append(self, rows: pd.DataFrame) -> None:
        """Write the next row group of the trajectory."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(rows, preserve_index=False)
        try:
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(
                    self._folder / TRAJECTORY, table.schema, compression="zstd"
                )
            self._parquet.write_table(table.cast(self._parquet.schema))
        except OSError as error:
            raise RunFolderError(f"cannot write block {self._final}: {error}") from error

    def commit(
        self,
        samples: pd.DataFrame,
        clean: Tensor,
        adversarial: Tensor,
        facts: BlockFacts,
        seconds: dict[str, float],
        layers: pd.DataFrame | None = None,
    ) -> None:
        """Write what is left and give the block its name: from here on it counts."""
        self._close()
        try:
            samples.to_parquet(self._folder / SAMPLES, compression="zstd", index=False)
            if layers is not None:
                layers.to_parquet(self._folder / LAYERS, compression="zstd", index=False)
            save_images(self._folder / ADVERSARIAL, adversarial.float())
            save_images(self._folder / CLEAN, as_bytes(clean))
            files = {file.name: sha256(file) for file in sorted(self._folder.iterdir())}
            whole = facts.model_copy(update={"files": files})
            write_text(self._folder / "block.json", whole.model_dump_json(indent=2))
            write_text(self._folder / "timing.json", json.dumps(seconds, indent=2))
            self._folder.rename(self._final)
        except OSError as error:
            raise RunFolderError(f"cannot write block {self._final}: {error}") from error

    def keep_failure(self, failure: BlockFailure) -> None:
        """Keep what was streamed before the attack raised, in place of an earlier failure."""
        kept = self._final.parents[1] / FAILED / self._final.name
        earlier = kept.with_name(self._folder.name)
        try:
            self._close()
            write_text(self._folder / "failure.json", failure.model_dump_json(indent=2))
            kept.parent.mkdir(exist_ok=True)
            if kept.exists():
                kept.rename(earlier)
            self._folder.rename(kept)
        except OSError as error:
            raise RunFolderError(f"cannot write {kept}: {error}") from error
        shutil.rmtree(earlier, ignore_errors=True)

    def _close(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
            self._parquet = None


def write_text(file: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old text or the new one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # left by a process that died, or a link to lead us astray
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


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
        path: the folder.
        manifest: what was asked for, resolved, with versions and hashes.
        room: what its tables may take in memory.
    """

    def __init__(self, path: Path, manifest: Manifest):
        self.path, self.manifest, self.room = path, manifest, Room()

    @property
    def spec(self) -> RunSpec:
        """The resolved spec."""
        return self.manifest.spec

    @cached_property
    def blocks(self) -> list[BlockFacts]:
        """The committed blocks, in order."""
        found = []
        for plan in self.manifest.blocks:
            folder = self._folder(plan.index)
            if is_plain_folder(folder):
                facts: BlockFacts = parse(BlockFacts, folder / "block.json")
                if facts.plan != plan or not {SAMPLES, ADVERSARIAL} <= set(facts.files):
                    raise RunFolderError(f"{folder}/block.json is not of this run's block")
                found.append(facts)
        return found

    @cached_property
    def failures(self) -> list[BlockFailure]:
        """The blocks whose attack raised after its first model call, in order."""
        if not is_plain_folder(self.path / EVIDENCE / FAILED):
            return []
        folders = [self._folder(plan.index, FAILED) for plan in self.manifest.blocks]
        return [parse(BlockFailure, f / "failure.json") for f in folders if is_plain_folder(f)]

    @property
    def complete(self) -> bool:
        """Whether every planned block was committed."""
        return len(self.blocks) == len(self.manifest.blocks)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """A row per sample, in data set order: clean and adversarial measurements."""
        return pd.concat(self._tables(SAMPLES), ignore_index=True)

    @cached_property
    def trajectory(self) -> pd.DataFrame:
        """A row per sample and model call; the columns are those of `Recorder.trajectory`."""
        named = [
            with_names(rows, block.segments)
            for rows, block in zip(self._tables(TRAJECTORY), self.blocks, strict=True)
        ]
        table = pd.concat(named, ignore_index=True)
        table["part"] = table["part"].astype("category")  # blocks may know different parts
        return table

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
        file = self._folder(block, FAILED) / TRAJECTORY
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
            raise RunFolderError(f"{self.path} has no summary; the run did not end")
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
            file = self._folder(block.plan.index) / "timing.json"
            with reading(file):
                total += float(json.loads(read_text(file))[stage])
        return total

    def verify(self) -> None:
        """Compare every block's files with their checksums.

        Raises:
            RunFolderError: names the first file that is not what was written.
        """
        for block in self.blocks:
            for name, expected in block.files.items():
                file = self._folder(block.plan.index) / name
                with reading(file):
                    check_file(file)
                    found = sha256(file)
                if found != expected:
                    raise RunFolderError(f"{file} is damaged: its checksum does not match")

    def _folder(self, index: int, kind: str = BLOCKS) -> Path:
        return self.path / EVIDENCE / kind / f"{index:05d}"

    def _no_rows(self) -> pd.DataFrame:
        return to_frame([], losses=self.spec.losses)

    def _tables(self, name: str) -> list[pd.DataFrame]:
        parts = []
        for block in self.blocks:
            file = self._folder(block.plan.index) / name
            if name == TRAJECTORY and TRAJECTORY not in block.files:
                parts.append(self._no_rows())  # the attack never called the model
                continue
            with reading(file):
                table = self.room.read(file)
                check = check_samples if name == SAMPLES else check_trajectory
                parts.append(check(file, table, block.plan))
        if not parts:
            raise RunFolderError(f"{self.path} has no finished block yet")
        return parts

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, blocks {len(self.blocks)}/{len(self.manifest.blocks)})"


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        RunFolderError: no run folder, damaged, or written by a newer flatguard.
    """
    file = Path(path) / EVIDENCE / "manifest.json"
    if not (is_plain_folder(file.parent) and is_plain_file(file)):
        raise RunFolderError(f"{path} is no run folder: it has no {EVIDENCE}/manifest.json")
    is_plain_folder(file.parent / BLOCKS)
    with reading(file):
        version = json.loads(read_text(file)).get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise RunFolderError(
            f"{path} has format {version}, this flatguard reads up to {FORMAT_VERSION}; "
            "upgrade flatguard"
        )
    return Run(Path(path), parse(Manifest, file))


def parse(kind: Any, file: Path) -> Any:
    """A JSON file as this kind of pydantic model, or one line that says what is damaged."""
    with reading(file):
        try:
            return kind.model_validate_json(read_text(file))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunFolderError(f"{file} is damaged: {where or first['msg']}") from error


@contextlib.contextmanager
def reading(file: Path) -> Any:
    """Whatever goes wrong while a file is read becomes one line that names it."""
    try:
        yield
    except RunFolderError:
        raise
    except Exception as error:  # pyarrow, safetensors and json raise their own
        raise RunFolderError(f"{file} is damaged: {one_line(error)}") from error


def device_facts(device: torch.device) -> dict[str, Any]:
    """What the numbers were computed on."""
    facts: dict[str, Any] = {"type": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        facts["name"] = torch.cuda.get_device_name(device)
        facts["tf32"] = torch.backends.cuda.matmul.allow_tf32
    return facts
