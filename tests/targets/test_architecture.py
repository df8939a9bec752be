"""Networks from `--arch`: factories, neighbours, packages."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from flatguard.errors import UsageError
from flatguard.targets.architecture import build

NET = """
from torch import nn
{imports}
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, width()))
"""


@pytest.fixture(autouse=True)
def path_kept() -> Iterator[None]:
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        if name.partition(".")[0] in ("blocks", "pkg", "nets", "parts"):
            del sys.modules[name]


def write(folder: Path, width: int, imports: str = "from blocks import width") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "blocks.py").write_text(f"def width():\n    return {width}\n")
    (folder / "net.py").write_text(NET.format(imports=imports))
    return f"{folder / 'net.py'}:make"


def width(model: nn.Module) -> int:
    return int(model(torch.zeros(1, 4)).shape[1])


def test_a_file_imports_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = write(tmp_path / "a", 3)
    assert width(build(arch)) == 3
    monkeypatch.chdir(tmp_path)
    assert width(build("a/net.py:make")) == 3


def test_two_folders_have_neighbours_of_one_name(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", 3), write(tmp_path / "b", 5)
    assert [width(build(arch)) for arch in (first, second, first)] == [3, 5, 3]


def test_a_neighbour_that_changed_is_read_again(tmp_path: Path) -> None:
    arch = write(tmp_path, 3)
    assert width(build(arch)) == 3
    (tmp_path / "blocks.py").write_text("def width():\n    # longer\n    return 11\n")
    assert width(build(arch)) == 11


def test_the_process_keeps_its_own_module_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "blocks.py").write_text("def width():\n    return 99\n")
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    import blocks  # type: ignore[import-not-found]

    assert width(build(write(tmp_path / "a", 3))) == 3
    assert sys.modules["blocks"] is blocks
    assert blocks.width() == 99


@pytest.mark.parametrize("has_init", [True, False])
def test_relative_imports(tmp_path: Path, has_init: bool) -> None:
    folder = tmp_path / "pkg"
    arch = write(folder, 3, "from .blocks import width")
    if has_init:
        (folder / "__init__.py").write_text("")
    assert width(build(arch)) == 3


def test_a_file_of_a_package_imports_the_package_by_name(tmp_path: Path) -> None:
    (tmp_path / "nets" / "parts").mkdir(parents=True)
    (tmp_path / "nets" / "__init__.py").write_text("")
    (tmp_path / "nets" / "parts" / "__init__.py").write_text("")
    arch = write(tmp_path / "nets" / "parts", 3, "from nets.parts.blocks import width")
    assert width(build(arch)) == 3


def test_an_import_in_the_factory_and_in_a_call(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x):\n"
        "        from blocks import width\n"
        "        return x[:, :width()]\n"
        "def make():\n"
        "    from blocks import width\n"
        "    return Net()\n"
    )
    model = build(f"{tmp_path / 'net.py'}:make")
    assert width(model) == 3


def test_a_file_finds_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "width.txt").write_text("7")
    (tmp_path / "net.py").write_text(
        "from pathlib import Path\nfrom torch import nn\n"
        "def make():\n"
        "    n = int((Path(__file__).parent / 'width.txt').read_text())\n"
        "    return nn.Linear(4, n)\n"
    )
    assert width(build(f"{tmp_path / 'net.py'}:make")) == 7


def test_a_missing_neighbour_is_one_line(tmp_path: Path) -> None:
    arch = write(tmp_path, 3, "from no_such_neighbour import width")
    with pytest.raises(UsageError, match=r"importing .*No module named 'no_such_neighbour'"):
        build(arch)


@pytest.mark.parametrize("arch", [r"C:\models\net.py", "net.py", "net.py:", ":make", "net:a b"])
def test_an_arch_without_a_factory_says_what_is_expected(arch: str) -> None:
    with pytest.raises(UsageError, match=r"expected module:factory or file\.py:factory, got"):
        build(arch)


def test_a_drive_letter_belongs_to_the_file() -> None:
    with pytest.raises(UsageError, match=r"no file C:\\models\\net\.py"):
        build(r"C:\models\net.py:make")
