"""RobustBench's models: by name or prefix, from the model folder or the network."""

from __future__ import annotations

import contextlib
import pickle
import sys
import tempfile
import urllib.parse
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatguard.environment import compat
from flatguard.environment.network import (
    HUGGING_FACE,
    PYTORCH_DOWNLOADS,
    bounded_sockets,
    cached_only,
    unreachable,
)
from flatguard.environment.pickles import check_pickle, pickle_code
from flatguard.environment.requirements import needed, repair_command
from flatguard.errors import (
    EnvironmentProblem,
    FlatguardError,
    ModelError,
    UntrustedCodeError,
    UsageError,
    did_you_mean,
    one_line,
)
from flatguard.geometry.budget import Norm
from flatguard.targets.target import Defaults, Target, make_target

DATASETS = ("cifar10", "cifar100", "imagenet")
_THREAT_MODELS = ("Linf", "L2", "corruptions", "corruptions_3d")
EPS = {
    ("cifar10", "Linf"): "8/255",
    ("cifar10", "L2"): "0.5",
    ("cifar100", "Linf"): "8/255",
    ("imagenet", "Linf"): "4/255",
}
"""The radii of RobustBench's leaderboards."""

_GOOGLE_DRIVE = "drive.google.com"


@dataclass(frozen=True)
class Entry:
    """One row of RobustBench's model zoo."""

    name: str
    dataset: str
    threat_model: str
    drive_ids: tuple[str, ...]
    preprocessing: str | None

    @property
    def folder(self) -> Path:
        """The folder of its files in the model folder; both corruption benchmarks share one."""
        return Path(self.dataset) / self.threat_model.replace("_3d", "")

    def files(self, model_dir: Path) -> list[Path]:
        """The checkpoint files that RobustBench expects, in the order of `drive_ids`."""
        file = model_dir / self.folder / f"{self.name}.pt"
        if len(self.drive_ids) == 1:
            return [file]
        return [Path(f"{file}_m{i}.pt") for i in range(len(self.drive_ids))]

    def defaults(self) -> Defaults:
        """The benchmark's convention; corruption entries have no norm and no radius."""
        norm: Norm | None = None
        if self.threat_model == "Linf":
            norm = "Linf"
        elif self.threat_model == "L2":
            norm = "L2"
        eps = EPS.get((self.dataset, self.threat_model))
        return Defaults(self.dataset, norm, eps, self.preprocessing)

    def __str__(self) -> str:
        return f"{self.name} ({self.dataset}, {self.threat_model})"


def entries(dataset: str | None = None, threat_model: str | None = None) -> list[Entry]:
    """All entries, or those of one data set or threat model; imports RobustBench (seconds)."""
    _check_not_overwritten()
    with _robustbench():
        from robustbench.model_zoo import model_dicts

    found = []
    for data, by_threat in model_dicts.items():
        for threat, models in by_threat.items():
            if dataset not in (None, data.value) or threat_model not in (None, threat.value):
                continue
            for name, facts in models.items():
                drive = facts.get("gdrive_id")
                ids = tuple(drive) if isinstance(drive, list) else ((drive,) if drive else ())
                prep = facts.get("preprocessing")
                found.append(Entry(name, data.value, threat.value, ids, prep))
    return found


def find_entry(name: str, dataset: str | None = None, threat_model: str | None = None) -> Entry:
    """The entry of this name, or the only one whose name starts with it; case is ignored.

    A name in several tables means that of CIFAR-10 and Linf if there is one, as in
    `robustbench.load_model`; otherwise the caller must choose.

    Raises:
        ModelError: unknown or ambiguous, with the nearest candidates.
    """
    known = entries(dataset, threat_model)
    wanted = name.lower()
    matching = [e for e in known if e.name.lower() == wanted]
    matching = matching or [e for e in known if e.name.lower().startswith(wanted)]
    if not matching:
        where = " ".join(filter(None, (dataset, threat_model)))
        raise ModelError(
            f"unknown model {name!r}{f' for {where}' if where else ''}"
            f"{did_you_mean(name, {e.name for e in known})}; "
            "`flatguard models` lists them; a checkpoint is named by its path"
        )
    names = sorted({e.name for e in matching})
    if len(names) > 1:
        raise ModelError(
            f"{name!r} is ambiguous: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        )
    if len(matching) > 1:
        usual = [e for e in matching if (e.dataset, e.threat_model) == ("cifar10", "Linf")]
        matching = usual or matching
    if len(matching) > 1:
        raise ModelError(
            f"{names[0]} is in several tables: {'; '.join(map(str, matching))}; "
            "choose with --dataset and --threat-model"
        )
    return matching[0]


def load(entry: Entry, model_dir: Path, allow_code: bool = False) -> Target:
    """Load an entry; missing files are downloaded under a temporary name until complete."""
    _check_not_overwritten()
    host = _hub_host(entry)
    source = f"weights from {host}" if host else str(entry.files(model_dir)[0])
    if host is None:
        for file, drive_id in zip(entry.files(model_dir), entry.drive_ids, strict=True):
            _fetch(entry, file, drive_id)
            if not allow_code:
                check_pickle(file)
    with _one_line_errors(entry, model_dir), pickle_code(allow_code), bounded_sockets():
        model = _load_model(entry, model_dir)
    return make_target(model, entry.name, f"RobustBench {entry}, {source}", entry.defaults())


def _load_model(entry: Entry, model_dir: Path) -> Any:
    with _robustbench():
        from robustbench.utils import load_model

    host = _hub_host(entry)
    why = unreachable(host) if host else None
    try:
        with contextlib.redirect_stdout(sys.stderr), cached_only(why), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # RobustBench's `pretrained=True`
            return load_model(entry.name, model_dir, entry.dataset, entry.threat_model)
    except Exception as error:
        if why is None:
            raise
        raise _no_weights(entry, f"nothing in the hub's cache, and {why}", None) from error


def _hub_host(entry: Entry) -> str | None:
    """The host of the weights of an entry that has no files in the model folder."""
    with _robustbench():
        import timm

    name = _timm_name(entry)
    if name is not None:
        url = timm.get_pretrained_cfg(name).url if timm.get_pretrained_cfg(name) else None
        return (urllib.parse.urlparse(url).hostname if url else None) or HUGGING_FACE
    return None if any(entry.drive_ids) else PYTORCH_DOWNLOADS


def _timm_name(entry: Entry) -> str | None:
    with _robustbench():
        import timm

    name = f"{entry.name.lower().replace('-', '_')}_{entry.dataset}_{entry.threat_model.lower()}"
    return name if timm.is_model(name) else None


def _fetch(entry: Entry, file: Path, drive_id: str) -> None:
    if file.is_file():
        return
    if why := unreachable(_GOOGLE_DRIVE):
        raise _no_weights(entry, why, file)
    try:
        with _robustbench():
            import gdown

        file.parent.mkdir(parents=True, exist_ok=True)
        # An interrupted gdown leaves temporary files; they are deleted with this folder.
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".download-") as folder:
            partial = Path(folder) / file.name
            with contextlib.redirect_stdout(sys.stderr), bounded_sockets(60.0):
                gdown.download(id=drive_id, output=str(partial))
            if not _looks_like_weights(partial):
                raise OSError("the download is not a checkpoint (a quota page?)")
            partial.replace(file)
    except Exception as error:  # gdown raises its own, requests' and the system's
        raise _no_weights(entry, f"download failed: {one_line(error)}", file) from error


def _looks_like_weights(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(2)
    return start in (b"PK", b"\x80\x02")  # torch's zip format, or its older pickle


def _no_weights(entry: Entry, tried: str, file: Path | None) -> EnvironmentProblem:
    expected = f"; put the checkpoint at {file}, or name --model-dir" if file else ""
    return EnvironmentProblem(f"no weights for {entry}: {tried}{expected}")


@contextlib.contextmanager
def _one_line_errors(entry: Entry, model_dir: Path) -> Iterator[None]:
    try:
        yield
    except FlatguardError:
        raise
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):
            raise ModelError(f"{entry}: {_damaged(entry, model_dir)}: {one_line(error)}") from error
        raise UntrustedCodeError(
            f"{entry}: its checkpoint runs code when it is loaded; --allow-code loads it anyway"
        ) from error
    except (OSError, EOFError) as error:
        why = _damaged(entry, model_dir) if entry.drive_ids else "needs files that are missing"
        raise ModelError(f"{entry}: {why}: {one_line(error)}") from error
    except (RuntimeError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{entry}: {_damaged(entry, model_dir)}: {one_line(error)}") from error


def _damaged(entry: Entry, model_dir: Path) -> str:
    return f"cannot load {', '.join(str(f) for f in entry.files(model_dir)[:1])}"


def _check_not_overwritten() -> None:
    if overwritten := compat.robustbench_overwritten():
        raise EnvironmentProblem(
            f"robustbench was overwritten by the copy of 2022 inside torchattacks' wheel "
            f"({len(overwritten)} files); repair it with: flatguard doctor --fix, which runs "
            f"{repair_command('robustbench')}"
        )


def _robustbench() -> AbstractContextManager[None]:
    return needed("robustbench", "robustbench", "a RobustBench model")


def check_choices(dataset: str | None, threat_model: str | None) -> None:
    """Refuse a data set or threat model that RobustBench has no table for."""
    if threat_model is not None and threat_model not in _THREAT_MODELS:
        raise UsageError(
            f"--threat-model: expected one of {', '.join(_THREAT_MODELS)}, got {threat_model!r}"
        )
    if dataset is not None and dataset not in DATASETS:
        raise UsageError(f"expected one of {', '.join(DATASETS)}, got {dataset!r}")
