"""Checkpoints in several files: an index, a folder, one shard; what is missing is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny

from flatguard.errors import ModelError
from flatguard.targets import load_target
from flatguard.targets.checkpoint import SUFFIXES, load
from flatguard.targets.shards import listed, shards_of

ARCH = f"{Path(__file__).parents[1] / 'support' / 'architectures.py'}:tiny"
STATE = tiny().state_dict()
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def write(folder: Path, kind: str = "safetensors", index: bool = True) -> Path:
    begins = "model" if kind == "safetensors" else "pytorch_model"
    names, places = list(STATE), {}
    for number in (1, 2):
        file = folder / f"{begins}-0000{number}-of-00002.{kind}"
        part = {name: STATE[name] for name in names[number - 1 :: 2]}
        save_file(part, file) if kind == "safetensors" else torch.save(part, file)
        places.update(dict.fromkeys(part, file.name))
    path = folder / f"{begins}.{kind}.index.json"
    if index:
        path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("given", ["index", "folder", "shard", "folder without an index"])
def test_all_shards_are_loaded(kind: str, given: str, tmp_path: Path) -> None:
    index = write(tmp_path, kind, index="without" not in given)
    shard = next(iter(sorted(tmp_path.glob(f"*.{kind}"))))
    path = {"index": index, "shard": shard}.get(given, tmp_path)
    target = load_target(str(path), arch=ARCH)
    with torch.no_grad():
        saved = tiny().eval()
        saved.load_state_dict(STATE)
        assert torch.equal(target.model(IMAGES), saved(IMAGES))
    assert "2 shards" in target.source


@pytest.mark.parametrize("given", ["index", "folder", "shard"])
def test_a_missing_shard_is_named(given: str, tmp_path: Path) -> None:
    index = write(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    shard = tmp_path / "model-00001-of-00002.safetensors"
    path = {"index": index, "folder": tmp_path, "shard": shard}[given]
    with pytest.raises(ModelError, match="1 of 2 shards are missing: model-00002-of-00002"):
        load(path, arch=ARCH)


def test_a_shard_that_lacks_what_the_index_promises(tmp_path: Path) -> None:
    index = write(tmp_path)
    held: dict[str, Any] = json.loads(index.read_text())
    held["weight_map"]["4.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(held))
    with pytest.raises(ModelError, match=r"of-00002.safetensors lacks 4\.weight, which model"):
        load(index, arch=ARCH)
    file = tmp_path / "model-00002-of-00002.safetensors"
    save_file(STATE, file)
    with pytest.raises(ModelError, match="two shards hold"):
        load(file, arch=ARCH)


@pytest.mark.parametrize("place", ["../w.safetensors", "/etc/passwd", "..", "sub/w.bin"])
def test_an_index_names_files_beside_it_only(place: str, tmp_path: Path) -> None:
    (tmp_path / "m.index.json").write_text(json.dumps({"weight_map": {"0.weight": place}}))
    with pytest.raises(ModelError, match="expected names of files beside it"):
        load(tmp_path / "m.index.json", arch=ARCH)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"weight_map": {}}', '{"weight_map": [1]}'])
def test_other_json_is_no_index(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.index.json").write_text(text)
    with pytest.raises(ModelError, match="is no checkpoint: it is JSON"):
        load(tmp_path / "m.index.json", arch=ARCH)


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ((), "a folder without a checkpoint .* it holds no files"),
        (("config.json", "a.txt"), "it holds a.txt, config.json"),
        (("a.pt", "b.pt"), "several checkpoints: a.pt, b.pt; give one of them"),
        ((".metadata", "__0_0.distcp"), "a distributed checkpoint of torch; join it"),
        (("zero_to_fp32.py",), "a checkpoint of DeepSpeed"),
        (("saved_model.pb",), "a SavedModel of TensorFlow"),
        (("data.pkl", "version"), "a checkpoint of torch that was unpacked"),
    ],
)
def test_folders_that_are_no_checkpoint(files: tuple[str, ...], what: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=what):
        load_target(str(tmp_path), arch=ARCH)


def test_the_only_checkpoint_of_a_folder(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "best.pt")
    (tmp_path / "config.json").write_text("{}")
    assert shards_of(tmp_path, SUFFIXES).files == (tmp_path / "best.pt",)
    assert load(tmp_path, arch=ARCH).source.startswith(f"{tmp_path.name}/best.pt in")
    save_file(STATE, tmp_path / "model.safetensors")
    assert shards_of(tmp_path, SUFFIXES).name == "model.safetensors"


def test_long_lists_are_short() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert len(listed(["x" * 5000] * 900)) < 300
