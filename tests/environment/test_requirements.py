"""A package that is absent, too old or broken is one line, from the package itself."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.hidden import MAIN, hidden

from flatguard.environment.requirements import (
    explain,
    install_command,
    needed,
    repair_arguments,
    repair_command,
    requirements,
)
from flatguard.errors import EnvironmentProblem

ROOT = Path(__file__).resolve().parents[2]


def shadow(folder: Path, package: str, version: str | None, code: str = "") -> Path:
    """A folder that stands before the installed packages, with another release of one of them."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(code)
    if version is not None:
        info = folder / f"{package}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
    return folder


def flatguard(*typed: str, before: Path) -> subprocess.CompletedProcess[str]:
    """The command line, with a folder before everything that is installed."""
    code = f"import sys; sys.path.insert(0, {str(before)!r})\n" + textwrap.dedent(f"""
        sys.argv = ["flatguard", *{list(typed)!r}]
        from flatguard.__main__ import main
        main()
    """)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


PROMPT = ["--prompt", "Say hello.", "--target", "Sure", "--attack", "gcg"]


@pytest.mark.parametrize(
    ("gone", "typed", "needs"),
    [
        ("torchattacks", ["evaluate", "--model", "demo", "--attack", "torchattacks:PGD"],
         "--attack torchattacks:NAME needs torchattacks>=3.5.1"),
        ("torchattacks", ["attacks", "torchattacks:PGD"], "needs torchattacks>=3.5.1"),
        ("robustbench", ["evaluate", "--model", "Carmon2019", "--attack", "apgd-ce"],
         "a RobustBench model needs robustbench>=1.1.1"),
        ("robustbench", ["models", "--dataset", "cifar10"], "needs robustbench>=1.1.1"),
        ("timm", ["evaluate", "--model", "timm:resnet18", "--attack", "apgd-ce"],
         "--model timm:NAME needs timm>=1.0.9"),
        ("torchvision", ["evaluate", "--model", "torchvision:resnet18", "--attack", "apgd-ce"],
         "--model torchvision:NAME needs torchvision>=0.21"),
        ("transformers", ["evaluate", "--model", "hf:org/name", "--attack", "apgd-ce"],
         "--model hf:NAME needs transformers"),
        ("nanogcg", ["evaluate", "--model", "smollm2", *PROMPT], "--attack gcg needs nanogcg"),
        ("nanogcg", ["attacks", "gcg"], "--attack gcg needs nanogcg"),
        ("gguf", ["evaluate", "--model", "file.gguf", *PROMPT], "a GGUF file needs gguf"),
    ],
)  # fmt: skip
def test_an_absent_extra_is_one_line(gone: str, typed: list[str], needs: str) -> None:
    Path("file.gguf").touch()
    done = hidden(gone, then=MAIN.format(typed=["flatguard", *typed]))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert needs in line
    extra = "llm" if gone in ("nanogcg", "gguf") else gone
    command = install_command(f"flatguard[{extra}]")
    assert f"{gone} is not installed; install it with: {command}" in line


def test_lists_show_what_is_there_and_say_what_is_not() -> None:
    done = hidden("torchattacks", then=MAIN.format(typed=["flatguard", "attacks"]))
    assert done.returncode == 0, done.stderr
    assert "apgd-ce" in done.stdout
    assert "foolbox:LinfPGD" in done.stdout
    assert "torchattacks:" not in done.stdout.replace("torchattacks:NAME", "")
    assert "needs torchattacks>=3.5.1; torchattacks is not installed" in done.stdout
    done = hidden("robustbench", then=MAIN.format(typed=["flatguard", "models"]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("demo")
    assert "needs robustbench>=1.1.1; robustbench is not installed" in done.stdout


def test_an_unknown_attack_is_unknown_where_a_library_is_absent() -> None:
    typed = ["flatguard", "evaluate", "--model", "demo", "--attack", "pgd"]
    done = hidden("torchattacks", then=MAIN.format(typed=typed))
    assert done.returncode == 2
    assert "unknown attack 'pgd'; nearest: foolbox:" in done.stderr


def test_the_core_alone_runs_the_demo(tmp_path: Path) -> None:
    extras = ("torchattacks", "robustbench", "timm", "torchvision", "gdown", "numba", "sklearn",
              "curvlinops", "pytorch_ood", "ray", "s3fs", "transformers", "open_clip")  # fmt: skip
    typed = ["flatguard", "evaluate", "--model", "demo", "--attack", "apgd-ce", "--n-examples",
             "2", "--checks", "none", "--out", str(tmp_path / "run"),
             "--attack-arg", "n_restarts=1", "--attack-arg", "n_iter=2"]  # fmt: skip
    done = hidden(*extras, then=MAIN.format(typed=typed))
    assert done.returncode in (0, 1, 3), done.stderr
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_package_that_is_too_old_is_named(tmp_path: Path) -> None:
    before = shadow(tmp_path, "typer", "0.1.0", "raise ImportError('no Typer here')")
    done = flatguard("doctor", before=before)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "flatguard needs typer>=" in line
    assert "but typer 0.1.0 is installed (ImportError: no Typer here)" in line
    assert "pip install 'typer>=" in line


def test_a_broken_package_is_named(tmp_path: Path) -> None:
    before = shadow(tmp_path, "pandas", "99.0", "raise OSError('libpandas.so: no such file')")
    done = flatguard("audit", str(tmp_path / "run"), before=before)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "pandas 99.0 cannot be imported (OSError: libpandas.so: no such file)" in line
    assert line.endswith(f"repair it with: {repair_command('pandas')}")


@pytest.mark.parametrize("code", ["raise RuntimeError('bad build')", "import no_such_package"])
def test_a_broken_extra_is_named(code: str, tmp_path: Path) -> None:
    before = shadow(tmp_path, "torchattacks", "3.5.1", code)
    done = flatguard("attacks", "torchattacks:PGD", before=before)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "--attack torchattacks:NAME needs torchattacks>=3.5.1; " in line
    expected = "torchattacks 3.5.1 cannot be imported (RuntimeError: bad build)"
    if "no_such" in code:  # the extra installs what its packages need
        command = install_command("flatguard[torchattacks]")
        expected = f"no_such_package is not installed; install it with: {command}"
    assert expected in line


@pytest.mark.parametrize("code", ["def __getattr__(name): raise AttributeError(name)", ""])
def test_an_extra_that_is_too_old_is_named(code: str, tmp_path: Path) -> None:
    """Its import fails, or it lacks a module that newer ones have."""
    before = shadow(tmp_path, "robustbench", "0.1", code)
    done = flatguard("models", "--dataset", "cifar10", before=before)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "robustbench 0.1 is too old" in line
    assert "install it with: " in line


def test_an_error_of_our_own_is_not_explained_away() -> None:
    with pytest.raises(ValueError, match="ours") as caught:
        raise ValueError("ours")
    assert explain(caught.value) is None


def test_every_extra_of_the_messages_exists() -> None:
    extras = {extra for known in requirements() for extra in known.extras}
    assert {"torchattacks", "robustbench", "timm", "torchvision", "layers", "detection"} <= extras
    core = {known.name for known in requirements() if not known.extras}
    assert core >= {"torch", "pyautoattack", "foolbox"}
    assert not core & {"torchattacks", "robustbench", "timm", "gdown", "torchvision"}


def test_needed_lets_through_what_is_there() -> None:
    with needed("numpy", "all", "this test"):
        import numpy  # noqa: F401
    absent = "this test needs nothing; nothing is not installed"
    with pytest.raises(EnvironmentProblem, match=absent), needed("nothing", "all", "this test"):
        import nothing  # noqa: F401


def test_the_repair_names_this_interpreter_and_the_installed_release() -> None:
    from importlib import metadata

    command = repair_arguments("pyautoattack")
    assert sys.executable in command
    assert "--no-deps" in command
    assert command[-1] == f"pyautoattack=={metadata.version('pyautoattack')}"
