"""Configs: the published ones, their schema, and what is said of a wrong one."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.schemas import meaning

from flatguard.attacks import check_args, find_attack
from flatguard.errors import UsageError
from flatguard.gate.config import Config, config_of, find_config, load_config, published, schema

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = {
    "robustbench-cifar10-linf": ("standard", "cifar10", "Linf", "8/255", 10000),
    "robustbench-cifar10-l2": ("standard", "cifar10", "L2", "0.5", 10000),
    "robustbench-cifar100-linf": ("standard", "cifar100", "Linf", "8/255", 10000),
    "robustbench-imagenet-linf": ("standard", "imagenet", "Linf", "4/255", 5000),
    "walter2026-pgd10": ("torchattacks:PGD", "cifar10", "Linf", "8/255", 10000),
    "walter2026-pgd25": ("torchattacks:PGDL2", "cifar10", "L2", "0.025", 10000),
    "stutz2021-pgd20": ("foolbox:LinfPGD", "cifar10", "Linf", "8/255", 1000),
    "release": ("apgd-ce", None, "Linf", "8/255", 1000),
}


@pytest.mark.parametrize("name", published())
def test_a_published_config_is_valid_and_cites_its_source(name: str) -> None:
    config = load_config(name)
    assert config.title
    assert config.source
    found = (config.attack, config.dataset, config.norm, config.eps, config.n_examples)
    assert found == PROTOCOLS[name]
    assert config.attack is not None
    info = find_attack(config.attack)
    check_args(info, config.attack_args)
    assert config.norm in info.norms
    assert published()[name].read_text("utf-8").count("#") >= 3


def test_all_of_them_are_there() -> None:
    assert set(published()) == set(PROTOCOLS)


def test_the_papers_own_numbers() -> None:
    pgd10, pgd25 = load_config("walter2026-pgd10"), load_config("walter2026-pgd25")
    assert pgd10.attack_args == {"steps": 10, "alpha": 2 / 255, "random_start": False}
    assert pgd25.attack_args == {"steps": 25, "alpha": 0.001, "random_start": False}
    stutz = load_config("stutz2021-pgd20").attack_args
    assert (stutz["steps"], stutz["restarts"]) == (20, 10)


def test_the_schema_in_the_docs_is_current() -> None:
    file = ROOT / "docs" / "config.schema.json"
    assert meaning(json.loads(file.read_text("utf-8"))) == meaning(schema()), "make docs-schema"


BAD: dict[str, str] = {
    "eps: 8/255\natack: apgd-ce": ":2: atack: there is no such key; nearest: attack",
    "gate:\n  min_robust_acuracy: 0.3": ":2: gate.min_robust_acuracy: .*: min_robust_accuracy",
    "min_robust_accuracy: 0.3": ":1: .*it belongs under gate: gate.min_robust_accuracy",
    "\n\nseed: -1": ":3: seed: Input should be greater than or equal to 0, got -1",
    "eps: many": ":1: eps: expected a number such as 8/255 or 0.031, got 'many'",
    "checks: fst": ":1: checks: expected one of none, fast, standard, full, got 'fst'",
    "gate: {allow: [blackbox]}": ":1: gate.allow: .*nearest: black-box",
    "gate:\n  max_overestimate: 5": ":2: gate.max_overestimate: Input should be less than 1",
    "gate: {max_wrong_pass: 0}": ":1: gate.max_wrong_pass: Input should be greater than 0",
    "gate: {max_wrong_pass: 1}": ":1: gate.max_wrong_pass: Input should be less than 1",
    "gate: {max_wrong_pass: .nan}": ":1: gate.max_wrong_pass: Input should be a finite number",
    "gate: {max_wrong_pass: few}": ":1: gate.max_wrong_pass: .*got 'few'",
    "seed: 1\nseed: 2": ":2: seed: this key is in line 1 already",
    "a: [1": ":1: not valid YAML",
    "tolerance: 0.1": ":1: tolerance: there is no such key; nearest: gate.max_overestimate",
    "- 1": ":1: expected keys and values, got list",
    "1: 2": ":1: .*got 1",
    "? [a, b]\n: c": ":1: not valid YAML: found unhashable key",
    "model: !!python/object/apply:os.getcwd []": ":1: not valid YAML: could not determine",
}


@pytest.mark.parametrize("text", BAD)
def test_a_wrong_config_is_named_by_file_line_and_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"x\.yaml" + BAD[text]) as raised:
        load_config(tmp_path / "x.yaml")
    assert "\n" not in str(raised.value)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "x.yaml")
    with pytest.raises(UsageError, match=r"no file nowhere/x\.yaml"):
        find_config("nowhere/x.yaml")
    with pytest.raises(UsageError, match="no config 'relase'; nearest: release"):
        find_config("relase")


def arguments(text: dict[str, Any]) -> dict[str, Any]:
    return config_of(text).arguments()


def test_only_written_keys_are_arguments() -> None:
    assert arguments({"title": "x", "source": ["a"]}) == {}
    assert arguments({"eps": 0.5, "norm": "linf", "dataset": "cifar10"}) == {
        "eps": "0.5", "norm": "Linf", "dataset": "cifar10",
    }  # fmt: skip
    assert arguments({"attack_args": {"alpha": "2/255", "loss": "dlr", "n": "1e-3"}}) == {
        "attack_args": {"alpha": 2 / 255, "loss": "dlr", "n": 1e-3}
    }
    assert arguments({"gate": {"max_overestimate": 0.1}}) == {"tolerance": 0.1}


def test_changes_stand_beside_what_was_written() -> None:
    config = config_of({"eps": 1, "gate": {"allow": ["basin"], "no_masking": False}})
    changed = config.with_(min_robust_accuracy=0.5, seed=3)
    assert changed.gate is not None
    assert changed.gate.allow == ("basin",)
    assert changed.gate.min_robust_accuracy == 0.5
    assert not changed.gate.no_masking
    assert (changed.eps, changed.seed) == ("1.0", 3)
    with pytest.raises(UsageError, match=r"^sed: there is no such key; nearest: seed"):
        Config().with_(sed=3)


def test_too_few_images_for_a_wrong_pass_are_named_before_the_attack() -> None:
    config = config_of({"gate": {"max_wrong_pass": 0.05}})
    config.check_images(59)
    with pytest.raises(UsageError, match=r"58 images cannot keep .* at least 59 are needed"):
        config.check_images(58)
    with pytest.raises(UsageError, match=r"max_overestimate is 0, .* accept a larger overestimate"):
        config_of({"gate": {"max_wrong_pass": 0.05, "max_overestimate": 0}}).check_images(10**6)
    config_of({"gate": {"max_overestimate": 0}}).check_images(1)
