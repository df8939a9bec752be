"""`make reproduce`: the studies of both papers that fit two cores, on real checkpoints.

Each result is kept as JSON in `docs/reproduction/`, so that a run that was stopped goes on where
it was, and `docs/reproduction.md` is drawn again from them. `--only NAME` takes some, `--fresh`
measures what is kept anew, `--draw` only draws.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.reproduction_page import page
from flatguard.errors import FlatguardError, UsageError
from flatguard.studies import STUDIES, find_study
from flatguard.studies.reproduce import Result, reproduce, reproduce_from_runs

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "reproduction"
PAGE = ROOT / "docs" / "reproduction.md"
ARCHITECTURES = ROOT / "tests" / "support" / "architectures.py"
TRAINED = ROOT / "benchmarks" / "robust_training" / "cache"
IMAGES = "cifar10_test_first1000.npz"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CERTIFIED = (0.485, 0.456, 0.406), (0.225, 0.225, 0.225)
CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Checkpoint:
    """A file in the real folder, the factory of its network, and its normalisation."""

    file: str
    factory: str
    statistics: tuple[tuple[float, ...], tuple[float, ...]]


REAL: dict[str, Checkpoint] = {
    "resnet20": Checkpoint("cifar10_resnet20_standard", "resnet20", IMAGENET),
    "resnet56": Checkpoint("cifar10_resnet56_standard", "resnet56", IMAGENET),
    "resnet20_rsfgsm": Checkpoint("cifar10_resnet20_rsfgsm_8_255", "resnet20", IMAGENET),
    "cnn_wide_certified": Checkpoint("cifar10_cnn_wide_certified_2_255", "cnn_wide", CERTIFIED),
    "cnn_a_pgd": Checkpoint("cifar10_cnn_a_pgd_2_255", "cnn_wide", CIFAR),
}
DEMO = "demo"


@dataclass(frozen=True)
class Piece:
    """A study, the models or runs that it looks at here, and on how many samples.

    Attributes:
        study: its name.
        models: by their names in `REAL`.
        samples: None is the study's own number.
        runs: a pattern of run folders that `make robust-training` leaves.
    """

    study: str
    models: tuple[str, ...] = ()
    samples: int | None = None
    runs: str = ""

    @property
    def file(self) -> Path:
        """Where its result is kept."""
        of_runs = [self.runs.partition("/")[0]] if self.runs else []
        return KEPT / ("-".join([self.study, *self.models[:1], *of_runs]) + ".json")


PIECES: tuple[Piece, ...] = (
    Piece("walter-fig2", ("resnet20",), 500),
    Piece("walter-fig3", ("resnet20",), 500),
    Piece("walter-fig6", (DEMO,), 40),
    Piece("walter-fig12", ("resnet20_rsfgsm", "resnet20"), 150),
    Piece("walter-fig13", ("resnet20",), 200),
    Piece("walter-fig14", ("resnet20",), 7),
    Piece("walter-fig16", ("resnet56",), 100),
    Piece("walter-fig16", (DEMO,), 24),
    Piece("walter-table1"),
    Piece("walter-lemma7", ("resnet20",), 50),
    Piece("walter-eq5", ("resnet20",), 50),
    Piece("walter-prop9", ("resnet20",), 50),
    Piece("walter-lemma10", ("resnet20",), 200),
    Piece("walter-lemma10", ("cnn_wide_certified",), 200),
    Piece("walter-lemma11", ("resnet20",), 200),
    Piece("walter-lemma12", ("resnet20",), 200),
    Piece("stutz-fig1", runs="last/*"),
    Piece("stutz-fig2", runs="epochs/at-*"),
    Piece("stutz-fig4", ("resnet20_rsfgsm",), 4),
    Piece("stutz-fig4", ("cnn_a_pgd",)),
    Piece("stutz-fig5", runs="epochs/*"),
    Piece("stutz-fig6", runs="last/*"),
    Piece("stutz-fig7", runs="last/*"),
    Piece("stutz-table1", runs="last/*"),
    Piece("stutz-table1", runs="epochs/*"),
)


def main() -> None:
    """Run what is asked for and not kept yet, and draw the page."""
    options = parser().parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    wanted = [piece for piece in PIECES if chosen(piece, options.only)]
    for number, piece in enumerate([] if options.draw else wanted, start=1):
        where = piece.runs or ", ".join(piece.models) or "no model"
        said = f"[{number}/{len(wanted)}] {piece.study} on {where}"
        if piece.file.is_file() and not options.fresh:
            print(f"{said}: kept")
            continue
        began = time.perf_counter()
        try:
            result = run(piece)
        except FlatguardError as error:
            print(f"{said}: left out: {error}")
            continue
        write(piece.file, as_json(result))
        verdicts = ", ".join(f"{claim.name} {claim.verdict}" for claim in result.claims)
        print(f"{said}: {verdicts}; {time.perf_counter() - began:.0f} s", flush=True)
        write(PAGE, page(STUDIES, kept()))
    write(PAGE, page(STUDIES, kept()))
    print(f"written to {PAGE.relative_to(ROOT)}")


def as_json(result: Result) -> str:
    """A result as it is kept: without the machine, floats to six digits."""
    found = result.model_dump(mode="json")
    found["versions"].pop("platform", None)
    return json.dumps(rounded(found), indent=1, ensure_ascii=False)


def rounded(value: Any) -> Any:
    """Six significant digits are enough to draw and to compare."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    found.add_argument("--only", default="", help="studies or models with one of these, by commas")
    found.add_argument("--fresh", action="store_true", help="measure what is kept anew")
    found.add_argument("--draw", action="store_true", help="only draw the page from what is kept")
    return found


def chosen(piece: Piece, substrings: str) -> bool:
    """Whether `--only` names it; a whole name of a study is that study alone."""
    parts = [part for part in substrings.split(",") if part]
    names = {study.name for study in STUDIES}
    return not parts or any(
        part == piece.study if part in names else part in piece.file.stem for part in parts
    )


def run(piece: Piece) -> Result:
    """One study on its models; the first model's data."""
    find_study(piece.study)
    if piece.runs:
        return reproduce_from_runs(piece.study, trained(piece.runs))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    data = None if not real_images().is_file() else str(real_images())
    targets = [target(name) for name in piece.models]
    return reproduce(piece.study, targets, data=data, n_examples=piece.samples, device="cpu")


def target(name: str) -> Any:
    """A model by its name in `REAL`, or the demo's."""
    from flatguard.targets import load_target

    if name == DEMO:
        return load_target(DEMO)
    known = REAL[name]
    mean, std = known.statistics
    found = load_target(
        str(real_folder() / "checkpoints" / f"{known.file}.safetensors"),
        arch=f"{ARCHITECTURES}:{known.factory}",
        mean=mean,
        std=std,
    )
    # The page is for all machines, and names no folder of this one.
    return replace(found, source=f"{known.file}.safetensors, {known.factory}")


def trained(pattern: str) -> list[Path]:
    """Runs of the networks that were trained here.

    Raises:
        UsageError: there are none.
    """
    found = sorted(path.parent for path in TRAINED.glob(f"{pattern}/evidence"))
    if not found:
        raise UsageError("no network was trained and measured here; `make robust-training` does it")
    return found


def real_folder() -> Path:
    """The folder of real checkpoints, named or beside the repository; it may not exist."""
    return Path(os.environ.get("FLATGUARD_REAL", ROOT.parent / "shared" / "real"))


def real_images() -> Path:
    """The real images; without them the demo's are taken."""
    return real_folder() / IMAGES


def kept() -> list[Result]:
    """All results that are kept, by name."""
    return [Result.model_validate_json(file.read_bytes()) for file in sorted(KEPT.glob("*.json"))]


def write(file: Path, text: str) -> None:
    """Whole or not at all: a killed run leaves what was there."""
    half = file.with_suffix(file.suffix + ".part")
    half.write_text(text if text.endswith("\n") else text + "\n", "utf-8")
    half.replace(file)


if __name__ == "__main__":
    main()
