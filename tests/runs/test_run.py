"""Opening and reading a run folder: what is read is what was written, or it is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support.run_folders import RUN, refused

import flatguard
from benchmarks.fuzz.forging import forge
from flatguard.errors import RunFolderError
from flatguard.reporting.report import write_report
from flatguard.runs import writing
from flatguard.runs.facts import BlockFailure
from flatguard.runs.layout import committed
from flatguard.runs.run import Run, load_run


def test_what_is_loaded_is_what_was_kept(attacked: Run) -> None:
    again = flatguard.load_run(attacked.path)
    assert again.complete
    assert again.manifest == attacked.manifest
    assert [b.plan.start for b in again.blocks] == [0, 5, 10]
    assert len({b.plan.seed for b in again.blocks}) == 3
    assert again.samples["sample"].tolist() == list(range(12))
    assert len(again.trajectory) == 12 * 3
    assert again.trajectory["sample"].tolist()[:5] == [0, 1, 2, 3, 4]
    adversarial = torch.cat([again.adversarial(i) for i in range(3)])
    assert adversarial.shape == (12, 3, 8, 8)
    assert again.adversarial_sha256() == again.summary["adversarial_sha256"]
    again.verify()


def test_the_manifest_repeats_the_run(attacked: Run) -> None:
    manifest = json.loads((attacked.path / "evidence" / "manifest.json").read_text())
    assert manifest["format_version"] == 4
    assert manifest["request"]["eps"] == "8/255"
    assert manifest["request"]["batch_size"] == 5
    assert manifest["attack_args"]["steps"] == 3
    assert manifest["attack_args"]["alpha"] == 2 / 255
    assert manifest["target"]["head"] == "3"
    assert {"torch", "torchattacks", "flatguard", "python"} <= set(manifest["versions"])
    assert manifest["device"]["type"] == "cpu"
    assert len(manifest["data"]["sha256"]) == len(manifest["target"]["weights_sha256"]) == 64


def test_paths_are_the_attack_alone(attacked: Run) -> None:
    whole = attacked.trajectory
    wanted = whole[whole["sample"].notna() & ~whole["bookkeeping"]]
    wanted = wanted.sort_values(["sample", "call"], kind="stable")
    found = pd.concat(attacked.paths("loss", "log_kappa"), ignore_index=True)
    assert list(found.columns) == ["sample", "call", "segment", "loss", "log_kappa"]
    for name in ("sample", "call", "loss", "log_kappa"):
        assert found[name].tolist() == wanted[name].tolist()


def test_a_missing_block_is_an_incomplete_run(attacked: Run) -> None:
    folder = committed(attacked.path)[1]
    folder.rename(attacked.path / "elsewhere")
    again = flatguard.load_run(attacked.path)
    assert not again.complete
    assert again.samples["sample"].tolist() == [0, 1, 2, 3, 4, 10, 11]


@pytest.mark.parametrize("name", ["trajectory.parquet", "adversarial.safetensors"])
def test_flipped_bytes_are_found(attacked: Run, name: str) -> None:
    file = committed(attacked.path)[2] / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match=rf"{name} is damaged: its checksum"):
        flatguard.load_run(attacked.path).verify()


def test_truncated_files_are_one_line(attacked: Run) -> None:
    for name, read in {
        "samples.parquet": lambda r: r.samples,
        "adversarial.safetensors": lambda r: r.adversarial(0),
        "block.json": lambda r: r.blocks,
    }.items():
        file = committed(attacked.path)[0] / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(RunFolderError, match="is damaged") as caught:
            read(flatguard.load_run(attacked.path))
        assert "\n" not in str(caught.value)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("version", "advice"),
    [(5, "upgrade flatguard"), (3, "evaluate again"), ("4", "evaluate again"), (None, "evaluate")],
)
def test_another_format_is_refused_in_one_line(attacked: Run, version: object, advice: str) -> None:
    file = attacked.path / "evidence" / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"format_version": version, "unheard_of": 1}))
    expected = f"has format {version}, this flatguard reads format 4; {advice}"
    with pytest.raises(RunFolderError, match=expected):
        flatguard.load_run(attacked.path)


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is no run folder"):
        flatguard.load_run(tmp_path)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "manifest.json").write_text("{not json")
    with pytest.raises(RunFolderError, match="is damaged"):
        flatguard.load_run(tmp_path)


def test_the_small_run_is_fine(run: Run) -> None:
    assert flatguard.audit("run").findings
    assert write_report(load_run("run")).html.is_file()


def test_a_block_under_the_name_of_another(block: Path) -> None:
    """Of two folders the first name counts, and is held to it."""
    shutil.copytree(block, block.with_name(f"00000-{'0' * 12}"))
    refused(r"00000-0{12}/block\.json is damaged: its checksum does not match")


BLOCKS: dict[str, tuple[Callable[[Any], object], str]] = {
    "another plan": (lambda facts: facts["plan"].update(seed=7), "belongs to another run"),
    "another run": (lambda facts: facts.update(run="0" * 64), "belongs to another run"),
    "no checksum": (lambda facts: facts["files"].pop("samples.parquet"), "has no checksum of its"),
    "no checksums": (lambda facts: facts.update(files={}), "has no checksum of its samples"),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_blocks_of_another_run(case: str, block: Path) -> None:
    edit, expected = BLOCKS[case]
    forge(block / "block.json", edit)
    refused(f"block.json .*{expected}")


@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd", "a/b", ".."])
def test_a_failed_block_that_names_a_file_elsewhere(block: Path, name: str) -> None:
    facts = load_run("run").blocks[0]
    failure = BlockFailure(
        error="", files={}, **facts.model_dump(exclude={"warnings", "failures", "run", "files"})
    )
    with writing.BlockWriter(RUN, 0) as writer:
        writer.keep_failure(failure)
    (file,) = RUN.glob("evidence/failed/00000/*.json")
    forge(file, lambda told: told["files"].update({name: "0" * 64}))
    block.rename(Path("away"))  # a failure that was made good since is not read
    with pytest.raises(RunFolderError, match=r"\.json is damaged: files"):
        _ = load_run("run").failures


@pytest.mark.parametrize(
    "edit", [{"clean_interval": 3}, {"seconds": "long"}, {"clean_accuracy": 7.0}, {"warnings": 1}]
)
def test_a_summary_of_the_wrong_kind(run: Run, edit: dict[str, object]) -> None:
    """It is derived: a report refuses it, judging writes it again."""
    file = RUN / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **edit}), "utf-8")
    with pytest.raises(RunFolderError, match="to write the file again: flatguard audit run"):
        write_report(load_run("run"))
    flatguard.audit("run")
    write_report(load_run("run"))
