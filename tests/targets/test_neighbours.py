"""Neighbours of `--arch` files: each network finds its own, and the caller keeps its imports."""

import copy
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from flatguard.errors import UsageError
from flatguard.gate.code import source_files
from flatguard.targets.architecture import build
from flatguard.targets.neighbours import Neighbours, imports_of

LAZY = {
    "in the forward pass": """
class Net(nn.Module):
    def forward(self, x):
        from blocks import width
        return x.flatten(1)[:, :width()]
""",
    "in a method of a part": """
class Part(nn.Module):
    def width(self):
        import blocks
        return blocks.width()
    def forward(self, x):
        return x.flatten(1)[:, :self.width()]
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = Part()
    def forward(self, x):
        return self.part(x)
""",
    "by its name": """
class Net(nn.Module):
    def forward(self, x):
        import importlib
        return x.flatten(1)[:, :importlib.import_module("blocks").width()]
""",
    "from a neighbour": """
import helper
class Net(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :helper.width()]
""",
    "from a folder": """
class Net(nn.Module):
    def forward(self, x):
        from kinds.blocks import width
        return x.flatten(1)[:, :width()]
""",
    "from a path of its own": """
import os, sys
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "kinds"))
class Net(nn.Module):
    def forward(self, x):
        import deep
        return x.flatten(1)[:, :deep.width()]
""",
}


def write(folder: Path, width: int, net: str) -> str:
    (folder / "kinds").mkdir(parents=True)
    code = f"def width():\n    return {width}\n"
    for name in ("blocks.py", "kinds/blocks.py", "kinds/deep.py"):
        (folder / name).write_text(code)
    (folder / "helper.py").write_text(
        "def width():\n    import blocks\n    return blocks.width()\n"
    )
    (folder / "net.py").write_text(f"from torch import nn\n{net}\ndef make():\n    return Net()\n")
    return f"{folder / 'net.py'}:make"


def width(model: nn.Module) -> int:
    return int(model(torch.zeros(1, 3, 4, 4)).shape[1])


@pytest.mark.parametrize("net", LAZY.values(), ids=LAZY)
def test_each_network_imports_its_own_neighbour_when_it_is_called(net: str, tmp_path: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    first, second = build(write(tmp_path / "a", 3, net)), build(write(tmp_path / "b", 5, net))
    assert [width(m) for m in (second, first, second, copy.deepcopy(first))] == [5, 3, 5, 3]
    assert sys.path == path
    assert not [n for n in set(sys.modules) - modules if n.partition(".")[0] in _NAMES]


_NAMES = ("blocks", "helper", "kinds", "deep", "net", "flatguard_arch_net")


@pytest.mark.parametrize("when", ["before", "between"])
def test_the_caller_has_a_module_of_that_name(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = write(tmp_path / "a", 3, LAZY["in the forward pass"])
    write(tmp_path / "own", 9, "")
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    if when == "before":
        import blocks  # type: ignore[import-not-found]
    model = build(arch)
    import blocks

    assert width(model) == 3
    assert sys.modules.pop("blocks") is blocks
    assert blocks.width() == 9


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_call_that_fails_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    path = list(sys.path)
    net = LAZY["in the forward pass"].replace(
        "        return", f"        if x.sum() > 0: raise {error.__name__}\n        return"
    )
    model = build(write(tmp_path, 3, net))
    with pytest.raises(error):
        model(torch.ones(1, 3, 4, 4))
    assert width(model) == 3
    assert sys.path == path
    assert "blocks" not in sys.modules


def test_a_factory_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = list(sys.path)
    arch = write(tmp_path, 3, "import blocks\nraise ValueError")
    with pytest.raises(UsageError, match="importing"):
        build(arch)
    assert sys.path == path
    assert "blocks" not in sys.modules


def test_the_search_path_is_kept_by_a_module_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 3, LAZY["in the forward pass"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [e for e in sys.path if e and Path(e).resolve() != tmp_path])
    path = list(sys.path)
    model = build("net:make")
    assert width(model) == 3
    assert sys.path == path


def test_the_files_of_a_network_are_found_by_its_classes(tmp_path: Path) -> None:
    model = build(write(tmp_path, 3, LAZY["from a neighbour"]))
    names = {file.name for file in source_files(model)}
    assert {"net.py", "helper.py", "blocks.py"} <= names


def test_networks_of_torchs_own_layers_can_be_sent(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))\n"
    )
    model = build(f"{tmp_path / 'net.py'}:make")
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert torch.equal(again(torch.ones(1, 3, 4, 4)), model(torch.ones(1, 3, 4, 4)))


def test_a_model_without_a_file_imports_as_usual() -> None:
    path = list(sys.path)
    with imports_of(nn.Linear(2, 2)):
        assert sys.path == path
    neighbours = Neighbours([])
    with neighbours.entered():
        assert sys.path == path
