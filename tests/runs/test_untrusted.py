"""Run folders that somebody else wrote: they stay in their folder, stay small, and run nothing."""

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from support.reports import SMALL

import flatguard
from benchmarks.fuzz.forging import block_folder, forge, sign
from benchmarks.fuzz.loaders import TINY
from benchmarks.synthetic import make_run
from flatguard.cli.app import main
from flatguard.errors import RunFolderError, UntrustedCodeError
from flatguard.reporting.report import write_report
from flatguard.runs import untrusted, writing
from flatguard.runs.check_evidence import load_fooled, load_probes, load_tables
from flatguard.runs.checksums import sha256
from flatguard.runs.facts import BlockFailure
from flatguard.runs.owners import ending
from flatguard.runs.run import Run, load_run

RUN = Path("run")
MANIFEST = Path("run/evidence/manifest.json")


@pytest.fixture
def run() -> Run:
    made = make_run(Path("run"), TINY)
    flatguard.audit(made)
    return made


@pytest.fixture
def block(run: Run) -> Path:
    return block_folder(RUN)


def refused(expected: str) -> None:
    """Judging and drawing both say so, in one line, with nothing written."""
    before = sorted(Path("run").rglob("*"))
    for work in (flatguard.audit, lambda path: write_report(load_run(path))):
        with pytest.raises(RunFolderError, match=expected) as caught:
            work("run")
        assert len(str(caught.value).splitlines()) == 1
    assert sorted(Path("run").rglob("*")) == before


def test_the_small_run_is_fine(run: Run) -> None:
    assert flatguard.audit("run").findings
    assert write_report(load_run("run")).html.is_file()


@pytest.mark.parametrize(
    "name", ["manifest.json", "blocks/{0}/block.json", "probes/twins/probe.json"]
)
def test_an_edit_without_a_new_seal_is_damage(run: Run, name: str) -> None:
    file = RUN / "evidence" / name.format(block_folder(RUN).name)
    content = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**content, "more": 1}), "utf-8")
    refused(f"{file.name} is damaged: its checksum does not match")


def test_a_block_under_the_name_of_another(block: Path) -> None:
    """Of two folders the first name counts, and is held to it."""
    shutil.copytree(block, block.with_name(f"00000-{'0' * 12}"))
    refused(r"00000-0{12}/block\.json is damaged: its checksum does not match")


@pytest.mark.parametrize("name", ["00000-{}", "00000-../..", "0", "00000-00000000000G", ".00000"])
def test_names_that_no_block_has(block: Path, name: str) -> None:
    """They count for nothing."""
    renamed = block.with_name(name.replace("/", "-"))
    block.rename(renamed)
    assert [facts.plan.index for facts in load_run("run").blocks] == [1]
    block.symlink_to(renamed)
    refused("is a link")


@pytest.mark.parametrize("name", [".staging", "evidence/failed"])
def test_nothing_is_written_or_removed_through_a_link(block: Path, name: str) -> None:
    """Not by what stages blocks and probes, nor by what sweeps up after the dead."""
    outside, gone = Path("elsewhere"), 2**22 + 1  # above every process number
    kept = [outside / f"00000{ending().rpartition('.')[0]}.{gone}", outside / "00000"]
    for folder in kept:
        folder.mkdir(parents=True)
    (RUN / name).symlink_to(outside.resolve())
    facts = load_run("run").blocks[0]
    failure = BlockFailure(
        error="", files={}, **facts.model_dump(exclude={"warnings", "failures", "run", "files"})
    )

    def fail() -> None:
        with writing.BlockWriter(RUN, 0) as writer:
            writer.keep_failure(failure)

    for work in (lambda: writing.sweep(RUN), fail):
        with pytest.raises(RunFolderError, match="is a link; a run folder holds plain files"):
            work()
    assert sorted(outside.iterdir()) == sorted(kept)


def test_a_shard_gives_away_nothing_that_it_does_not_name(block: Path) -> None:
    """A link beside a block's files is not followed, and a block beside the plan is not copied."""
    Path("secret").write_text("precious")
    (block / "more").symlink_to(Path("secret").resolve())
    shutil.copytree(block, block.with_name("00007"), symlinks=True)
    merged = flatguard.merge(["run"], "merged")
    assert merged.complete
    assert "precious" not in {file.read_text("latin1") for file in merged.path.rglob("*/*.*")}
    assert not list(merged.path.rglob("more"))
    assert not (merged.path / "evidence/blocks/00007").exists()
    (block / "timing.json").unlink()
    (block / "timing.json").symlink_to(Path("secret").resolve())
    with pytest.raises(RunFolderError, match=r"timing\.json is a link"):
        flatguard.merge(["run"], "another")


@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd", "a/b", "..", "", "a\n"])
def test_a_checksum_of_a_file_elsewhere(block: Path, name: str) -> None:
    forge(block / "block.json", lambda facts: facts["files"].update({name: "0" * 64}))
    refused(r"block\.json is damaged: files")


@pytest.mark.parametrize("sample", [-1, 1 << 60, 0.5, None])
def test_a_failure_of_no_sample(block: Path, sample: object) -> None:
    failure = {"sample": sample, "error": ""}
    forge(block / "block.json", lambda facts: facts.update(failures=[failure]))
    refused(r"block\.json is damaged: failures")


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


def test_a_probe_that_is_elsewhere(run: Run) -> None:
    file = Path("run/evidence/probes/twins/probe.json")
    forge(file, lambda facts: facts.update(name="../../../elsewhere"))
    refused(r"probe\.json is damaged: name")


@pytest.mark.parametrize(
    "place",
    [
        "evidence", "evidence/blocks", "evidence/blocks/{0}", "evidence/blocks/{0}/block.json",
        "evidence/blocks/{0}/samples.parquet", "evidence/probes", "evidence/probes/twins",
        "evidence/probes/twins/attempts.parquet", "evidence/manifest.json",
        "evidence/blocks/{1}/adversarial.safetensors",
    ],
)  # fmt: skip
def test_links_are_not_followed(run: Run, place: str) -> None:
    """Not even to the very same content."""
    names = [block_folder(RUN, index).name for index in (0, 1)]
    inside, outside = RUN / place.format(*names), Path("elsewhere")
    inside.rename(outside)
    inside.symlink_to(outside.resolve())
    refused(r"is a link; a run folder holds plain files")


def test_a_pipe_keeps_nobody_waiting(block: Path) -> None:
    for name in ("block.json", "samples.parquet"):
        whole = (block / name).read_bytes()
        (block / name).unlink()
        os.mkfifo(block / name)
        refused(r"is no plain file")
        (block / name).unlink()
        (block / name).write_bytes(whole)


def test_a_link_where_a_file_will_be_written(run: Run) -> None:
    """What is written goes through no link that lay there already."""
    victim = Path("victim")
    victim.write_text("precious")
    for name in (f".verdict.json.{os.getpid()}", "summary.json", "report.html"):
        Path("run", name).unlink(missing_ok=True)
        Path("run", name).symlink_to(victim.resolve())
    flatguard.audit("run")
    assert victim.read_text() == "precious"
    assert not Path("run/report.html").is_symlink()


@pytest.mark.parametrize("name", ["manifest.json", "blocks/{0}/block.json"])
def test_a_file_of_a_gigabyte_of_nothing(run: Run, name: str) -> None:
    with (RUN / "evidence" / name.format(block_folder(RUN).name)).open("r+b") as stream:
        stream.truncate(1 << 30)
    refused("expected at most 32 MiB, got 1,024.0 MiB")


def bomb(file: Path, rows: int, columns: dict[str, Any]) -> None:
    """Rows that are all the same: a few bytes in a file."""
    cells = pa.table({name: [value] for name, value in columns.items()})
    table = cells.take(pa.array(np.zeros(min(rows, 10_000_000), np.int32)))
    with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        for _ in range(rows // len(table)):
            writer.write_table(table, row_group_size=len(table))


def test_a_table_that_unpacks_to_gigabytes(block: Path) -> None:
    """1.5 GiB in less than 1 MB are refused from their footer, before a row is read."""
    bomb(block / "samples.parquet", 200_000_000, {"sample": 1})
    block = sign(block)
    assert (block / "samples.parquet").stat().st_size < 1_000_000
    refused("it would unpack to more than 1,526 MiB")


def test_words_that_repeat_cost_nothing(tmp_path: Path) -> None:
    """A megabyte of text in a million rows would be a terabyte."""
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), ["x" * (1 << 20)])
    pq.write_table(pa.table({"attempt": words}), tmp_path / "t.parquet", store_schema=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = untrusted.Room().read(tmp_path / "t.parquet")
    assert len(table) == 1_000_000
    assert len({id(word) for word in table["attempt"]}) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_all_tables_of_a_run_share_one_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "FREE", 20 << 20)
    monkeypatch.setattr(untrusted, "RATIO", 1)
    bomb(tmp_path / "t.parquet", 1_000_000, {"sample": 1})
    room = untrusted.Room()
    assert len(room.read(tmp_path / "t.parquet")) == len(room.read(tmp_path / "t.parquet"))
    with pytest.raises(RunFolderError, match="it would unpack"):
        room.read(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    "column", [pa.array([[1]] * 2), pa.array([b"x"] * 2), pa.array([{"a": 1}] * 2)]
)
def test_columns_that_are_no_numbers_or_words(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"a": column}), tmp_path / "t.parquet")
    with pytest.raises(RunFolderError, match="column a is of"):
        untrusted.Room().read(tmp_path / "t.parquet")


MANIFESTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "no budget": (lambda m: m["request"].update(norm=None), "its request has no norm"),
    "no blocks": (lambda m: m.update(blocks=[]), "it has no blocks"),
    "a gap": (lambda m: m["blocks"][1].update(start=3), "block 1 does not follow"),
    "twice the same": (lambda m: m["blocks"][1].update(index=0), "block 1 does not follow"),
    "backwards": (lambda m: m["blocks"][0].update(stop=0), "block 0 does not follow"),
    "no classes": (lambda m: m["target"].update(num_classes=0), "target.num_classes"),
    "a device of nothing": (lambda m: m.update(device={}), "its device has no type"),
    "a million threads": (lambda m: m["device"].update(threads=10**6), "number of threads"),
    "an endless number": (lambda m: m["blocks"][0].update(seed=10**300), "blocks.0.seed"),
    "a path for a norm": (lambda m: m["request"].update(norm="../x"), "request.norm"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests_that_no_run_has(case: str, run: Run) -> None:
    edit, expected = MANIFESTS[case]
    forge(MANIFEST, edit)
    refused(f"manifest.json is damaged: .*{expected}")


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


TABLES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "a column is missing": (lambda t: t.drop(columns="robust"), "it has no column robust"),
    "words for numbers": (lambda t: t.assign(clean_loss="much"), "column clean_loss is of"),
    "numbers for truths": (lambda t: t.assign(robust=0.5), "column robust is of float64"),
    "other samples": (lambda t: t.assign(sample=t["sample"] + 1), "expected samples 0 to 1"),
    "one sample twice": (lambda t: t.assign(sample=0), "expected samples 0 to 1"),
    "too few": (lambda t: t.iloc[:1], "expected samples 0 to 1"),
    "a sample of half": (lambda t: t.assign(sample=[0.0, 0.5]), "column sample is of float64"),
    "a label below nought": (lambda t: t.assign(label=-1), "a label is negative"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_of_something_else(case: str, block: Path) -> None:
    edit, expected = TABLES[case]
    file = block / "samples.parquet"
    edit(pd.read_parquet(file)).to_parquet(file, index=False)
    sign(block)
    refused(f"samples.parquet is damaged: {expected}")


def test_a_trajectory_of_something_else(block: Path) -> None:
    file = block / "trajectory.parquet"
    whole = pd.read_parquet(file)
    for changed in (whole.assign(sample=99), whole.assign(assigned_by=9), whole[["sample"]]):
        changed.to_parquet(file, index=False)
        with pytest.raises(RunFolderError, match=r"trajectory\.parquet is damaged"):
            _ = load_run("run").trajectory


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 9, 4), torch.zeros(5), torch.zeros(2, 3, 4, 4).bfloat16()]
)
def test_images_of_something_else(block: Path, images: torch.Tensor) -> None:
    save_file({"adversarial": images}, block / "adversarial.safetensors")
    with pytest.raises(RunFolderError, match=r"adversarial\.safetensors is damaged"):
        load_run("run").adversarial_sha256()


def test_a_probe_about_other_samples(run: Run) -> None:
    folder = Path("run/evidence/probes/determinism")
    table = pd.read_parquet(folder / "repeated.parquet").assign(sample=99)
    table.to_parquet(folder / "repeated.parquet", index=False)
    save_file({"sample": torch.tensor([99]), "images": torch.zeros(1, 3, 4, 4)}, folder / "f")
    (folder / "f").rename(folder / "fooled.safetensors")
    digest = sha256(folder / "repeated.parquet")
    forge(folder / "probe.json", lambda facts: facts["files"].update({"repeated.parquet": digest}))
    opened = load_run("run")
    with pytest.raises(RunFolderError, match="a sample that the run does not have"):
        load_tables(opened, load_probes(opened)["determinism"])
    with pytest.raises(RunFolderError, match="not about samples of this run"):
        load_fooled(opened, "determinism")


@pytest.mark.parametrize("facts", [{"queries": "many"}, {"met": [1]}, {"refused": 3}])
def test_facts_of_the_wrong_kind(run: Run, facts: dict[str, object]) -> None:
    file = Path("run/evidence/probes/twins/probe.json")
    forge(file, lambda content: content["facts"].update(facts))
    refused("probe.json is damaged: facts")


@pytest.mark.parametrize(
    "edit", [{"clean_interval": 3}, {"seconds": "long"}, {"clean_accuracy": 7.0}, {"warnings": 1}]
)
def test_a_summary_of_the_wrong_kind(run: Run, edit: dict[str, object]) -> None:
    """It is derived: a report refuses it, judging writes it anew."""
    file = RUN / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **edit}), "utf-8")
    with pytest.raises(RunFolderError, match="flatguard audit run writes it anew"):
        write_report(load_run("run"))
    flatguard.audit("run")
    write_report(load_run("run"))


@pytest.mark.parametrize("spec", [{"arch": "evil.py:net"}, {"allow_code": True}])
def test_a_run_folder_runs_no_code(run: Run, spec: dict[str, object]) -> None:
    """Probes load the model that the folder names; what runs code waits for a word."""
    Path("evil.py").write_text("open('victim', 'w')\n")
    forge(MANIFEST, lambda manifest: manifest["request"].update(spec))
    with pytest.raises(UntrustedCodeError, match=r"names code that would run here \(.*allow-code"):
        flatguard.audit("run", checks="fast")
    assert not Path("victim").exists()
    assert flatguard.audit("run").findings  # reading needs no code


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"


def test_a_terminal_is_shown_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Names, warnings and errors of a run folder are printed with what they hide made visible."""
    make_run(Path("run"), SMALL)
    forge(block_folder(RUN) / "block.json", lambda facts: facts.update(warnings=[HOSTILE]))
    with pytest.raises(SystemExit):
        main(["audit", "run"])
    shown = capsys.readouterr()
    assert "warning: torchattacks:PGD: \\u001b]0;owned\\u0007\\u001b[2J\\u202e" in shown.out
    forge(MANIFEST, lambda manifest: manifest.update({HOSTILE: 1}))
    with pytest.raises(SystemExit, match="2"):
        main(["audit", "run"])
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "\\u001b[2J" in told.err
    assert not {"\x1b", "\x07", "\u202e"} & set(shown.out + shown.err + told.err)
