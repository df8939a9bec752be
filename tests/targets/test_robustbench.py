"""RobustBench's entries: names, conventions, the model folder, and no network."""

import os
from pathlib import Path

import pytest
import torch

import flatguard
from flatguard.data.dataset import Batch
from flatguard.errors import EnvironmentProblem, ModelError, UntrustedCodeError, UsageError
from flatguard.targets import robustbench


def test_every_entry_of_the_installed_robustbench_is_known() -> None:
    from robustbench.model_zoo import model_dicts

    expected = sum(len(models) for tables in model_dicts.values() for models in tables.values())
    entries = robustbench.entries()
    assert len(entries) == expected > 150
    assert {e.dataset for e in entries} == set(robustbench.DATASETS)
    assert {e.threat_model for e in entries} >= {"Linf", "L2", "corruptions"}
    for entry in entries:
        defaults = entry.defaults()
        is_corruption = entry.threat_model.startswith("corruptions")
        assert (defaults.norm is None, defaults.eps is None) == (is_corruption, is_corruption)


@pytest.mark.parametrize(
    ("asked", "name", "dataset", "threat_model"),
    [
        ("Carmon2019Unlabeled", "Carmon2019Unlabeled", "cifar10", "Linf"),
        ("Carmon2019", "Carmon2019Unlabeled", "cifar10", "Linf"),
        ("carmon", "Carmon2019Unlabeled", "cifar10", "Linf"),
        ("Standard", "Standard", "cifar10", "Linf"),
        ("Salman2020Do_R18", "Salman2020Do_R18", "imagenet", "Linf"),
    ],
)
def test_names_and_prefixes(asked: str, name: str, dataset: str, threat_model: str) -> None:
    entry = robustbench.find_entry(asked)
    assert (entry.name, entry.dataset, entry.threat_model) == (name, dataset, threat_model)


def test_the_table_can_be_chosen() -> None:
    entry = robustbench.find_entry("Standard", "cifar10", "L2")
    assert entry.defaults().eps == "0.5"
    assert robustbench.find_entry("Rice2020Overfitting", "cifar100").dataset == "cifar100"
    imagenet = robustbench.find_entry("Engstrom2019", "imagenet").defaults()
    assert (imagenet.eps, imagenet.preprocessing) == ("4/255", "Res256Crop224")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("Wang2023", "ambiguous: Wang2023Better_WRN-28-10, Wang2023Better_WRN-70-16"),
        ("Carman2019", "unknown model 'Carman2019'; nearest: Carmon2019Unlabeled"),
        ("Hendrycks2020AugMix_WRN", "is in several tables"),
        ("", "ambiguous"),
    ],
)
def test_names_that_do_not_decide(asked: str, expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        robustbench.find_entry(asked)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_tables() -> None:
    with pytest.raises(UsageError, match=r"expected one of Linf, L2, .*got 'Linfty'"):
        flatguard.load_target("Carmon2019", threat_model="Linfty")


def test_neither_file_nor_network(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        flatguard.load_target("Carmon2019", model_dir=tmp_path / "zoo")
    message = str(caught.value)
    assert "FLATGUARD_OFFLINE" in message
    assert str(tmp_path / "zoo" / "cifar10" / "Linf" / "Carmon2019Unlabeled.pt") in message
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("half", [b"PK\x03\x04 the first half", b"<html>quota exceeded</html>"])
def test_a_download_that_fails_leaves_nothing_to_be_loaded(
    half: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transfer itself cannot be real here; what it leaves behind is."""
    import gdown

    def broken(id: str, output: str) -> None:
        Path(output + "abc.part").write_bytes(half)
        Path(output).write_bytes(half)
        if half.startswith(b"PK"):
            raise ConnectionError("cut off")

    monkeypatch.setattr(robustbench, "unreachable", lambda host: None)
    monkeypatch.setattr(gdown, "download", broken)
    with pytest.raises(EnvironmentProblem, match=r"download failed: .*put the checkpoint at"):
        flatguard.load_target("Carmon2019", model_dir=tmp_path / "zoo")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_an_entry_from_a_hub_without_network() -> None:
    with pytest.raises(EnvironmentProblem, match=r"nothing in the hub's cache.*FLATGUARD_OFFLINE"):
        flatguard.load_target("Debenedetti2022Light_XCiT-S12", dataset="cifar10")


def carmon_file(folder: Path) -> Path:
    file = folder / "cifar10" / "Linf" / "Carmon2019Unlabeled.pt"
    file.parent.mkdir(parents=True)
    return file


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = carmon_file(tmp_path)
    file.write_bytes(b"PK\x03\x04 this is no checkpoint")
    with pytest.raises(ModelError, match="is damaged or truncated") as caught:
        flatguard.load_target("Carmon2019", model_dir=tmp_path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": Path.exists}, carmon_file(tmp_path))
    with pytest.raises(UntrustedCodeError, match="--allow-code"):
        flatguard.load_target("Carmon2019", model_dir=tmp_path)


def test_random_weights_in_robustbenchs_own_layout(tmp_path: Path, demo_batch: Batch) -> None:
    """WRN-28-10 as Carmon2019Unlabeled, 36 million weights, loaded and attacked on 4 images."""
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    zoo = model_dicts[BenchmarkDataset("cifar10")][ThreatModel("Linf")]
    torch.manual_seed(0)
    network = zoo["Carmon2019Unlabeled"]["model"]()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state}, carmon_file(tmp_path / "zoo"))
    target = flatguard.load_target("Carmon2019", model_dir=tmp_path / "zoo")
    assert torch.equal(target.model.state_dict()["fc.weight"], network.state_dict()["fc.weight"])
    images = demo_batch.images[:4]
    labels = target.model(images).argmax(1)  # a random network is right about nothing else
    run = flatguard.evaluate(target, "torchattacks:FGSM", data=(images, labels))
    assert (run.request.norm, run.request.eps) == ("Linf", "8/255")
    assert run.manifest.target.head == "fc"
    assert run.summary["clean_accuracy"] == 1.0
    assert run.summary["sample_forwards"] == run.summary["sample_backwards"] == 4
    assert run.trajectory["log_kappa"].notna().all()


@pytest.mark.parametrize("allow_code", [False, True])
@pytest.mark.parametrize(
    "name", ["TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"]
)
def test_the_environment_does_not_decide_what_a_checkpoint_may_run(
    name: str, allow_code: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is read either way; one that runs code is read where it is allowed alone."""
    monkeypatch.setenv(name, "1")
    file = carmon_file(tmp_path)
    torch.save({"state_dict": {}}, file)
    with pytest.raises(ModelError, match=r"Error\(s\) in loading state_dict"):
        flatguard.load_target("Carmon2019", model_dir=tmp_path, allow_code=allow_code)
    torch.save({"state_dict": {"weight": Path.exists}}, file)
    expected = ModelError if allow_code else UntrustedCodeError
    with pytest.raises(expected) as caught:
        flatguard.load_target("Carmon2019", model_dir=tmp_path, allow_code=allow_code)
    assert type(caught.value) is expected
    assert "Only one of" not in str(caught.value)
    assert os.environ[name] == "1"
