"""Runs a command in one of the environments that the tested set is not: oldest, newest, beside.

    python3 .ci/environment.py newest -- python -m pytest tests/smoke

The environment is resolved anew each time. It is kept outside the clone, under a name made of its
resolved versions, so that it is downloaded once. flatguard itself is installed from the clone, in
editable mode; a lock keeps two clones apart. Exit code 75 means that the command was NOT RUN, with
the reason on stderr; otherwise the code is the command's.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flatguard"
NOT_RUN = 75
NEEDED_BYTES = 12 * 10**9
"""A CUDA build of torch takes 6 GB; as much again while it is unpacked."""

UNREACHABLE = ("error sending request", "Failed to fetch", "dns error", "Could not connect")
BESIDE = ("mlflow>=3", "open-clip-torch>=3", "timm>=1.0.20", "transformers>=5")


@dataclass(frozen=True)
class Environment:
    """What is asked for.

    Attributes:
        pythons: minor versions of Python 3 that will do, the best first.
        options: of `uv pip compile`.
        others: requirements beside flatguard's.
    """

    pythons: tuple[int, ...]
    options: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


NEW_PYTHONS = (15, 14, 13, 12)
ENVIRONMENTS = {
    "oldest": Environment((11,), ("--resolution", "lowest-direct")),
    "newest": Environment(NEW_PYTHONS),
    "beside": Environment(NEW_PYTHONS, ("--override", "overrides.txt"), BESIDE),
}


class NotRun(Exception):
    """There is no such environment here; its text says why."""


def main() -> int:
    """Make the environment, or find it, and run the command there."""
    name, dashes, *command = sys.argv[1:] or [""]
    if name not in ENVIRONMENTS or dashes != "--" or not command:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return run(name, command)
    except NotRun as why:
        print(f"NOT RUN: the {name} environment: {why}", file=sys.stderr)
        return NOT_RUN


def run(name: str, command: list[str]) -> int:
    """The command's exit code."""
    wanted, failures = ENVIRONMENTS[name], []
    with locked("uv"):
        uv = bootstrap_uv()
    for minor in wanted.pythons:
        python = interpreter(minor)
        if python is None:
            continue
        version = answer_of(python, "import platform; print(platform.python_version())")
        try:
            lock = resolve(uv, wanted, minor)
        except subprocess.CalledProcessError as error:
            # The newest Python may be newer than the packages; the next one is tried.
            failures.append(f"Python {version}: {error.stderr.strip()[-300:]}")
            print(f"{name}: no resolution for Python {version}", file=sys.stderr)
            continue
        print(f"{name}: Python {version}, {versions_in(lock)}", flush=True)
        return run_in(uv, python, name, lock, command)
    if failures:
        raise SystemExit(f"the {name} environment cannot be resolved: {'; '.join(failures)}")
    tried = ", ".join(f"3.{minor}" for minor in wanted.pythons)
    raise NotRun(f"no Python of {tried} was found on the path or under pyenv")


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Two clones on one machine do not write into the same folder at the same time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def interpreter(minor: int) -> str | None:
    """A Python 3 of this minor version that starts, or None."""
    found = [shutil.which(f"python3.{minor}"), sys.executable]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    versions = pyenv.glob(f"versions/3.{minor}.*/bin/python")
    found += [str(path) for path in sorted(versions, reverse=True)]
    for python in filter(None, found):  # pyenv's shims are on the path and may not start
        if answer_of(python, "import sys; print(*sys.version_info[:2])") == f"3 {minor}":
            return python
    return None


def answer_of(python: str, code: str) -> str:
    """What a line of Python prints, or nothing."""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def bootstrap_uv() -> str:
    """uv from the path, or in an environment of its own."""
    own = CACHE / "uv" / "bin" / "uv"
    if found := shutil.which("uv"):
        return found
    if not own.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", CACHE / "uv"], check=True)
        pip = [CACHE / "uv" / "bin" / "python", "-m", "pip", "install", "--quiet", "uv"]
        if subprocess.run(pip, check=False).returncode:
            raise NotRun("uv could not be installed")
    return str(own)


def resolve(uv: str, wanted: Environment, minor: int) -> str:
    """All packages with their versions; flatguard is not among them."""
    typed = [
        uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--extra", "dev",
        "--python-version", f"3.{minor}", *wanted.options, "pyproject.toml", "-",
    ]  # fmt: skip
    done = subprocess.run(
        typed, input="\n".join(wanted.others), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode and any(sign in done.stderr for sign in UNREACHABLE):
        raise NotRun("the package index cannot be reached")
    done.check_returncode()
    return done.stdout


def versions_in(lock: str) -> str:
    """The versions that people ask for first."""
    named = ("torch", "torchvision", "numpy", "pandas", "timm", "transformers", "mlflow")
    lines = (line.split(" ;")[0] for line in lock.splitlines())
    return ", ".join(line for line in lines if line.partition("==")[0] in named)


def run_in(uv: str, python: str, name: str, lock: str, command: list[str]) -> int:
    """Fill the environment where it is new, put the clone into it, and run."""
    key = hashlib.sha256(f"{answer_of(python, 'import sys; print(sys.version)')}{lock}".encode())
    folder = CACHE / f"{name}-{key.hexdigest()[:12]}"
    with locked(name):
        if not (folder / "complete").is_file():
            fill(uv, python, folder, name, lock)
        inside = folder / "bin"
        path = os.pathsep.join((str(inside), str(Path(uv).parent), os.environ["PATH"]))
        environ = os.environ | {"PATH": path, "VIRTUAL_ENV": str(folder)}
        install = [uv, "pip", "install", "--quiet", "--python", inside / "python", "--no-deps"]
        subprocess.run([*install, "--reinstall", "--editable", ROOT], check=True)
        doctor = [inside / "python", "-m", "flatguard", "doctor", "--fix"]
        if subprocess.run(
            doctor, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, check=False
        ).returncode:
            raise SystemExit(f"{name}: `flatguard doctor --fix` left something broken")
        return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode


def fill(uv: str, python: str, folder: Path, name: str, lock: str) -> None:
    """Download and install; the environments of other versions go."""
    for old in CACHE.glob(f"{name}-*"):
        shutil.rmtree(old)
    free = shutil.disk_usage(CACHE).free
    if free < NEEDED_BYTES:
        raise NotRun(f"{free / 1e9:.0f} GB are free on its disk, {NEEDED_BYTES / 1e9:.0f} needed")
    began = time.monotonic()
    requirements = CACHE / f"{name}.txt"
    requirements.write_text(lock)
    subprocess.run([uv, "venv", "--quiet", "--seed", "--python", python, folder], check=True)
    sync = [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", "--no-deps"]
    subprocess.run([*sync, "--requirement", requirements], check=True)
    (folder / "complete").touch()
    print(f"{name}: installed in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
