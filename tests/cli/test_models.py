"""`flatguard models`."""

import json
from pathlib import Path


def test_models(cli) -> None:
    everything = json.loads(cli("models", "--json").out)
    assert everything[0]["name"] == "demo"
    assert len(everything) > 150
    found = cli("models", "carmon")
    assert "Carmon2019Unlabeled" in found.out
    assert "Linf 8/255" in found.out
    corrupted = cli("models", "--dataset", "cifar100", "--threat-model", "corruptions")
    assert "name --norm and --eps" in corrupted.out
    assert cli("models", "--dataset", "mnist").code == 2


def test_models_says_which_are_here(cli, tmp_path: Path) -> None:
    file = tmp_path / "zoo" / "cifar10" / "Linf" / "Carmon2019Unlabeled.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    rows = json.loads(cli("models", "Carmon", "--model-dir", tmp_path / "zoo", "--json").out)
    assert [row["here"] for row in rows] == [True]
    (row,) = (line for line in cli("models", "demo").out.splitlines() if line.startswith("demo"))
    assert row.split()[-1] == "yes"
