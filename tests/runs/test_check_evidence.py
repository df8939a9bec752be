"""The evidence of checks: it is read as it was written, and is about its own run."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from support.run_folders import refused

from benchmarks.fuzz.forging import forge
from flatguard.errors import RunFolderError
from flatguard.runs.check_evidence import (
    ProbeFacts,
    add_probe,
    load_fooled,
    load_probes,
    load_tables,
)
from flatguard.runs.checksums import sha256
from flatguard.runs.run import Run, load_run


def test_a_probe_that_is_elsewhere(run: Run) -> None:
    file = Path("run/evidence/probes/twins/probe.json")
    forge(file, lambda facts: facts.update(name="../../../elsewhere"))
    refused(r"probe\.json is damaged: name")


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


def test_what_is_added_is_read_and_only_a_probe_that_could_not_run_is_replaced(run: Run) -> None:
    table = pd.DataFrame({"sample": [0, 1], "value": [0.5, 1.5]})
    fooled = {1: torch.rand(3, 4, 4)}
    facts = ProbeFacts(name="new", checks="fast", ran=False, facts={}, sample_forwards=3, seed=0)

    def added(tables: dict[str, pd.DataFrame], ran: bool) -> ProbeFacts:
        add_probe(run, facts.model_copy(update={"ran": ran}), tables, fooled if ran else {}, 1.0)
        return load_probes(run)["new"]

    assert not added({}, ran=False).ran
    assert added({"values": table}, ran=True).ran
    second = added({"values": table.assign(value=9.0)}, ran=True)
    pd.testing.assert_frame_equal(load_tables(run, second)["values"], table)
    kept = load_fooled(run, "new")
    assert list(kept) == [1]
    assert torch.equal(kept[1], fooled[1])
    assert not (run.path / ".staging").exists()
