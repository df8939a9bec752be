"""The loaders that read what anybody may have written, each as a function of one file's bytes.

A loader raises a `FlatguardError` or accepts. Where a format hides the interesting part behind a
checksum or an archive, the bytes are that part, and the rest is made whole around it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from benchmarks.fuzz.forging import block_folder, seal, sign
from benchmarks.synthetic import Size, make_run
from flatguard.data import load_dataset
from flatguard.evaluation import audit
from flatguard.gate import baseline
from flatguard.gate.config import load_config
from flatguard.reporting.report import write_report
from flatguard.runs.check_evidence import load_fooled, load_probes
from flatguard.runs.run import load_run
from flatguard.targets import checkpoint

TINY = Size(samples=4, steps=2, block=2, side=4)
CONFIG = b"""title: "a"
source: [b, c]
model: demo
attack: torchattacks:PGD
attack_args: {steps: 20, alpha: 2/255, seeds: "(2, 10)"}
norm: Linf
eps: 8/255
n_examples: 200
mean: [.4, .5, .6]
losses: ["focal:2", 'kl:0.1']
checks: standard
max_minutes: 1e1
gate:
  min_robust_accuracy: 0.50
  no_masking: true
  allow: [basin]
"""


@dataclass(frozen=True)
class Harness:
    """A loader that is ready: what it reads at first, and the function that reads."""

    seeds: tuple[bytes, ...]
    load: Callable[[bytes], object]


@dataclass(frozen=True)
class Loader:
    """One of the loaders.

    Attributes:
        name: as the table shows it.
        inputs: how many it is given in the benchmark.
        ready: prepares it in an empty folder.
    """

    name: str
    inputs: int
    ready: Callable[[Path], Harness]


def network() -> nn.Module:
    """The architecture of the fuzzed checkpoints."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


def _config(folder: Path) -> Harness:
    file = folder / "c.yaml"
    short = b"eps: 0.1\ngate: {allow: [inconclusive]}\nattack_args: {a: '[1, none]'}\n"
    return Harness((CONFIG, short), lambda data: load_config(_written(file, data)))


def _checkpoint(suffix: str, seeds: Callable[[], tuple[bytes, ...]]) -> Callable[[Path], Harness]:
    def ready(folder: Path) -> Harness:
        file, arch = folder / f"w{suffix}", f"{__name__}:network"
        return Harness(seeds(), lambda data: checkpoint.load(_written(file, data), arch=arch))

    return ready


def _torch_files() -> tuple[bytes, ...]:
    saved = []
    for modern in (True, False):
        stream = io.BytesIO()
        torch.save(network().state_dict(), stream, _use_new_zipfile_serialization=modern)
        saved.append(stream.getvalue())
    return tuple(saved)


def _safetensors() -> tuple[bytes, ...]:
    return (save(network().state_dict()),)


def _description(folder: Path) -> Harness:
    """The pickle inside a torch file."""
    file, arch, whole = folder / "w.pt", f"{__name__}:network", _torch_files()[0]
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (described,) = (name for name in entries if name.endswith("data.pkl"))

    def load(data: bytes) -> object:
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in {**entries, described: data}.items():
                archive.writestr(name, content)
        return checkpoint.load(file, arch=arch)

    other = {"state_dict": network().state_dict(), "epoch": (1, [2.0], {"a": None}, 2**40)}
    stream = io.BytesIO()
    torch.save(other, stream)
    with zipfile.ZipFile(stream) as archive:
        return Harness((entries[described], archive.read(described)), load)


def _in_run(
    find: Callable[[Path], Path], read: Callable[[Path], object]
) -> Callable[[Path], Harness]:
    """A file of a run folder whose other files are whole."""

    def ready(folder: Path) -> Harness:
        path = folder / "run"
        audit(make_run(path, TINY))

        def load(data: bytes) -> object:
            _sealed(_written(find(path), data))
            return read(path)

        return Harness((find(path).read_bytes(),), load)

    return ready


def _at(place: str) -> Callable[[Path], Path]:
    return lambda run: run / place


def _in_block(name: str) -> Callable[[Path], Path]:
    return lambda run: block_folder(run) / name


def _sealed(file: Path) -> None:
    """What can bear a seal gets the right one; what cannot is read as it is."""
    if file.name not in ("manifest.json", "block.json", "probe.json"):
        return
    try:
        content = json.loads(file.read_bytes())
        if isinstance(content, dict):
            seal(file, content)
    except (ValueError, RecursionError):
        pass


def _opened(path: Path) -> object:
    run = load_run(path)
    return run.blocks, run.failures, run.complete, run.samples, load_probes(run), repr(run)


def _tables(path: Path) -> object:
    run = load_run(path)
    return run.samples, run.trajectory, list(run.paths("loss", "log_kappa"))


def _images(path: Path) -> object:
    run = load_run(path)
    return run.adversarial_sha256(), run.clean(0)


def _probe_facts(path: Path) -> object:
    run = load_run(path)
    return {name: load_fooled(run, name) for name in load_probes(run)}


def _judged(folder: Path) -> Harness:
    """A whole run, judged and drawn: cells of its tables are set to what the bytes say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "run"
    audit(make_run(path, TINY))
    table = pq.read_table(io.BytesIO((block_folder(path) / "samples.parquet").read_bytes()))
    values = [0, 1, -1, 2**31 - 1, 1e308, float("nan"), float("inf"), 0.5, True, False, None, "a"]

    def load(data: bytes) -> object:
        changed = table
        for column, row, value in zip(data[::3], data[1::3], data[2::3], strict=False):
            index = column % changed.num_columns
            cells = changed.column(index).to_pylist()
            cells[row % len(cells)] = values[value % len(values)]
            try:
                array = pa.array(cells, None if value & 64 else changed.schema.field(index).type)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                continue
            changed = changed.set_column(index, changed.schema.names[index], array)
        pq.write_table(changed, block_folder(path) / "samples.parquet")
        sign(block_folder(path))
        verdict = audit(path)
        write_report(load_run(path))
        return verdict

    return Harness((b"\x00\x00\x00", b"\x0a\x01\x05\x0b\x01\x06"), load)


def _baseline(folder: Path) -> Harness:
    run = make_run(folder / "run", TINY)
    audit(run)
    file = baseline.save(run, folder, "b", anyway=True)
    seed = file.read_bytes()

    def load(data: bytes) -> object:
        return baseline.compare(run, baseline.load(_written(file, data)))

    return Harness((seed,), load)


def _archive(folder: Path) -> Harness:
    stream = io.BytesIO()
    np.savez(stream, images=np.zeros((2, 3, 2, 2), np.uint8), labels=np.arange(2))
    return _dataset(folder / "d.npz", stream.getvalue())


def _tensors(folder: Path) -> Harness:
    stream = io.BytesIO()
    torch.save({"images": torch.zeros(2, 3, 2, 2), "labels": torch.arange(2)}, stream)
    return _dataset(folder / "d.pt", stream.getvalue())


def _array(folder: Path) -> Harness:
    np.save(folder / "labels.npy", np.arange(2))
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 3, 2, 2), np.float32))
    return _dataset(folder / "d.npy", stream.getvalue(), f"{folder}/d.npy,{folder}/labels.npy")


def _picture(folder: Path) -> Harness:
    from PIL import Image

    seeds = []
    for kind in ("PNG", "JPEG", "BMP", "WEBP"):
        stream = io.BytesIO()
        Image.new("RGB", (3, 2), (1, 2, 3)).save(stream, kind)
        seeds.append(stream.getvalue())
    (folder / "images" / "cat").mkdir(parents=True)
    first, *others = seeds
    made = _dataset(folder / "images" / "cat" / "a.png", first, str(folder / "images"))
    return Harness((*made.seeds, *others), made.load)


def _dataset(file: Path, seed: bytes, name: str | None = None) -> Harness:
    def load(data: bytes) -> object:
        _written(file, data)
        return load_dataset(name or str(file)).block(0, 2)

    return Harness((seed,), load)


def _written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


LOADERS = (
    Loader("config", 20_000, _config),
    Loader("checkpoint-torch", 16_000, _checkpoint(".pt", _torch_files)),
    Loader("checkpoint-pickle", 20_000, _description),
    Loader("checkpoint-safetensors", 14_000, _checkpoint(".safetensors", _safetensors)),
    Loader("run-manifest", 10_000, _in_run(_at("evidence/manifest.json"), _opened)),
    Loader("run-block", 4_000, _in_run(_in_block("block.json"), _opened)),
    Loader("run-samples", 2_000, _in_run(_in_block("samples.parquet"), _tables)),
    Loader("run-trajectory", 500, _in_run(_in_block("trajectory.parquet"), _tables)),
    Loader("run-images", 5_000, _in_run(_in_block("adversarial.safetensors"), _images)),
    Loader("run-probe", 5_000, _in_run(_at("evidence/probes/twins/probe.json"), _probe_facts)),
    Loader("run-summary", 400, _in_run(_at("summary.json"), lambda p: write_report(load_run(p)))),
    Loader("run-verdict", 400, _in_run(_at("verdict.json"), lambda p: write_report(load_run(p)))),
    Loader("run-judged", 60, _judged),
    Loader("baseline", 2_000, _baseline),
    Loader("data-npz", 5_000, _archive),
    Loader("data-npy", 4_000, _array),
    Loader("data-pt", 2_000, _tensors),
    Loader("data-image", 4_000, _picture),
)
BY_NAME = {loader.name: loader for loader in LOADERS}
