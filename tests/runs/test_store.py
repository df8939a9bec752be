"""The run folder: whole blocks, checksums, versions, and clear refusals."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support.architectures import tiny

import flatguard
from flatguard.errors import RunFolderError
from flatguard.recording.trajectory import to_frame
from flatguard.runs import writing
from flatguard.runs.facts import BlockFacts, BlockFailure
from flatguard.runs.images import as_bytes, as_floats
from flatguard.runs.layout import committed
from flatguard.runs.run import Run
from flatguard.runs.storage import open_storage


@pytest.fixture
def run(tiny_data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> Run:
    torch.manual_seed(0)
    return flatguard.evaluate(
        tiny().eval(),
        "torchattacks:PGD",
        data=tiny_data,
        eps="8/255",
        attack_args={"steps": 3},
        batch_size=5,
        out=tmp_path / "run",
    )


def test_the_layout_is_as_documented(run: Run) -> None:
    files = sorted(str(f.relative_to(run.path)) for f in run.path.rglob("*") if f.is_file())
    names = [
        "adversarial.safetensors", "block.json", "clean.safetensors", "samples.parquet",
        "timing.json", "trajectory.parquet",
    ]  # fmt: skip
    folders = committed(run.path)
    blocks = [f"evidence/blocks/{folders[i].name}/{name}" for i in range(3) for name in names]
    assert all(re.fullmatch(r"0000\d-[0-9a-f]{12}", folders[i].name) for i in range(3))
    assert [name for name in files if not name.startswith("evidence/probes/")] == [
        *blocks, "evidence/manifest.json", "report.html", "report.json", "report.junit.xml",
        "report.md", "summary.json", "verdict.json",
    ]  # fmt: skip


def test_what_is_loaded_is_what_was_kept(run: Run) -> None:
    again = flatguard.load_run(run.path)
    assert again.complete
    assert again.manifest == run.manifest
    assert [b.plan.start for b in again.blocks] == [0, 5, 10]
    assert len({b.plan.seed for b in again.blocks}) == 3
    assert again.samples["sample"].tolist() == list(range(12))
    assert len(again.trajectory) == 12 * 3
    assert again.trajectory["sample"].tolist()[:5] == [0, 1, 2, 3, 4]
    adversarial = torch.cat([again.adversarial(i) for i in range(3)])
    assert adversarial.shape == (12, 3, 8, 8)
    assert again.adversarial_sha256() == again.summary["adversarial_sha256"]
    again.verify()


def test_the_manifest_repeats_the_run(run: Run) -> None:
    manifest = json.loads((run.path / "evidence" / "manifest.json").read_text())
    assert manifest["format_version"] == 4
    assert manifest["request"]["eps"] == "8/255"
    assert manifest["request"]["batch_size"] == 5
    assert manifest["attack_args"]["steps"] == 3
    assert manifest["attack_args"]["alpha"] == 2 / 255
    assert manifest["target"]["head"] == "3"
    assert {"torch", "torchattacks", "flatguard", "python"} <= set(manifest["versions"])
    assert manifest["device"]["type"] == "cpu"
    assert len(manifest["data"]["sha256"]) == len(manifest["target"]["weights_sha256"]) == 64


def test_the_clean_images_are_kept_bit_for_bit(
    run: Run, tiny_data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    assert torch.equal(torch.cat([run.clean(index) for index in range(3)]), tiny_data[0])
    eight_bit = torch.arange(256).to(torch.uint8).reshape(1, 1, 16, 16)
    assert as_bytes(eight_bit.float() / 255.0).dtype == torch.uint8
    assert torch.equal(as_floats(eight_bit), eight_bit.float() / 255.0)


def test_paths_are_the_attack_alone(run: Run) -> None:
    whole = run.trajectory
    wanted = whole[whole["sample"].notna() & ~whole["bookkeeping"]]
    wanted = wanted.sort_values(["sample", "call"], kind="stable")
    found = pd.concat(run.paths("loss", "log_kappa"), ignore_index=True)
    assert list(found.columns) == ["sample", "call", "segment", "loss", "log_kappa"]
    for name in ("sample", "call", "loss", "log_kappa"):
        assert found[name].tolist() == wanted[name].tolist()


def test_a_missing_block_is_an_incomplete_run(run: Run) -> None:
    folder = committed(run.path)[1]
    folder.rename(run.path / "elsewhere")
    again = flatguard.load_run(run.path)
    assert not again.complete
    assert again.samples["sample"].tolist() == [0, 1, 2, 3, 4, 10, 11]


@pytest.mark.parametrize("name", ["trajectory.parquet", "adversarial.safetensors"])
def test_flipped_bytes_are_found(run: Run, name: str) -> None:
    file = committed(run.path)[2] / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match=rf"{name} is damaged: its checksum"):
        flatguard.load_run(run.path).verify()


def test_truncated_files_are_one_line(run: Run) -> None:
    for name, read in {
        "samples.parquet": lambda r: r.samples,
        "adversarial.safetensors": lambda r: r.adversarial(0),
        "block.json": lambda r: r.blocks,
    }.items():
        file = committed(run.path)[0] / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(RunFolderError, match="is damaged") as caught:
            read(flatguard.load_run(run.path))
        assert "\n" not in str(caught.value)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("version", "advice"),
    [(5, "upgrade flatguard"), (3, "evaluate again"), ("4", "evaluate again"), (None, "evaluate")],
)
def test_another_format_is_refused_in_one_line(run: Run, version: object, advice: str) -> None:
    file = run.path / "evidence" / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"format_version": version, "unheard_of": 1}))
    expected = f"has format {version}, this flatguard reads format 4; {advice}"
    with pytest.raises(RunFolderError, match=expected):
        flatguard.load_run(run.path)


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is no run folder"):
        flatguard.load_run(tmp_path)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "manifest.json").write_text("{not json")
    with pytest.raises(RunFolderError, match="is damaged"):
        flatguard.load_run(tmp_path)


def test_a_folder_that_exists_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunFolderError, match="exists already; name another folder with --out"):
        writing.check_new(open_storage(tmp_path / "mine"))


def test_a_folder_without_permission() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs Linux's /proc, where nobody may write, not even root")
    with pytest.raises(RunFolderError, match="cannot write to /proc"):
        writing.check_new(open_storage(Path("/proc/run")))


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write to .*; name another folder with --out"):
        writing.check_new(open_storage(tmp_path / "file" / "run"))


def facts(run: Run) -> BlockFacts:
    return run.blocks[0].model_copy(update={"files": {}})


def test_whoever_comes_second_with_a_block_changes_nothing(
    run: Run, tiny_data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    before = sorted(run.path.rglob("*"))
    with writing.BlockWriter(run.path, 0) as writer:  # block 0 is there already
        writer.append(pd.DataFrame({"b": [1]}))
        writer.commit(pd.DataFrame({"a": [1]}), tiny_data[0], tiny_data[0], facts(run), {})
    assert sorted(run.path.rglob("*")) == before
    run.verify()


def test_a_block_that_is_not_committed_leaves_nothing(run: Run) -> None:
    before = sorted(run.path.rglob("*"))
    with writing.BlockWriter(run.path, 7) as writer:
        writer.append(pd.DataFrame({"b": [1]}))  # and then the attack fails
    assert sorted(run.path.rglob("*")) == before


def test_a_failed_block_replaces_an_earlier_failure(run: Run) -> None:
    whole = facts(run).model_dump(exclude={"warnings", "files", "failures", "run"})
    (run.path / "aside").mkdir()
    committed(run.path)[1].rename(run.path / "aside" / "00001")
    for calls in (4, 2):
        with writing.BlockWriter(run.path, 1) as writer:
            writer.append(to_frame([]).assign(call=[]))
            failure = BlockFailure(**whole | {"calls": calls}, error="out of luck")
            writer.keep_failure(failure.model_copy(update={"plan": run.manifest.blocks[1]}))
    again = flatguard.load_run(run.path)
    assert [(f.plan.index, f.calls) for f in again.failures] == [(1, 2)]
    assert len(again.failed_trajectory(1)) == 0
    folder = run.path / "evidence" / "failed"
    assert [f.name for f in folder.iterdir()] == ["00001"]
    (folder / "00001" / "trajectory.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match="is damaged"):
        again.failed_trajectory(1)


def test_the_trajectory_arrives_in_row_groups(run: Run, tiny_data: Any) -> None:
    import pyarrow.parquet as pq

    with writing.BlockWriter(run.path, 3) as writer:
        for call in range(4):
            writer.append(pd.DataFrame({"call": [call] * 5}))
        writer.commit(pd.DataFrame({"a": [1]}), tiny_data[0], tiny_data[0], facts(run), {})
    file = committed(run.path)[3] / "trajectory.parquet"
    assert pq.ParquetFile(file).num_row_groups == 4
    assert pd.read_parquet(file)["call"].tolist() == [c for c in range(4) for _ in range(5)]
