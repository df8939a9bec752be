"""The source files that a model depends on."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from flatguard.gate.code import source_files

FACTORY = """
from defence.parts import Net

def network():
    return Net()
"""
PARTS = """
from torch import nn
from .consts import FACTOR
from . import more
import space.inside

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
    def forward(self, x):
        import late
        return super().forward(x) * FACTOR
"""
TEXTS = {
    "factory.py": FACTORY, "defence/__init__.py": "", "defence/parts.py": PARTS,
    "defence/consts.py": "import math, torch\nFACTOR = 1.0", "defence/more.py": "",
    "late.py": "import factory", "space/inside.py": "def broken(", "unrelated.py": "",
    "defence/unrelated.py": "",
}  # fmt: skip
NEEDED = {
    "factory.py", "__init__.py", "parts.py", "consts.py", "more.py", "late.py", "inside.py",
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in TEXTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "space/inside.py").write_text("X = 1")
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_models_files_are_those_of_its_classes_and_all_that_they_import(project: Path) -> None:
    model = importlib.import_module("factory").network()
    files = source_files(model)
    assert {file.name for file in files} == NEEDED
    assert all(project.resolve() in file.parents for file in files)
    assert {file.name for file in source_files(nn.Sequential(nn.ReLU(), model))} == NEEDED


@pytest.mark.parametrize("arch", ["factory:network", "{}/factory.py:network"])
def test_a_factory_is_a_part_of_the_code(arch: str, project: Path) -> None:
    assert {file.name for file in source_files(nn.ReLU(), arch.format(project))} == NEEDED


def test_a_file_that_is_no_python_has_no_imports(project: Path) -> None:
    model = importlib.import_module("factory").network()
    (project / "space/inside.py").write_text("def broken(")
    assert {file.name for file in source_files(model)} == NEEDED


def test_installed_packages_and_flatguard_are_no_part_of_it() -> None:
    from flatguard.targets.normalized import Normalized

    assert Path(torch.__file__) not in source_files(nn.Linear(2, 2))
    assert source_files(nn.Sequential(nn.ReLU())) == []
    assert source_files(Normalized(nn.ReLU(), (0.5,), (0.5,))) == []
