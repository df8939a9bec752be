"""`make reproduce`: the studies of both papers that fit two cores, on real checkpoints.

Each result is kept as JSON in `docs/reproduction/`, so a stopped run continues where it was, and
`docs/reproduction.md` is drawn from them. `--only NAME` selects studies, `--fresh` measures again
what is kept, `--draw` only draws.
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

from benchmarks.prompt_figure import draw
from benchmarks.reproduction_page import page
from flatguard.errors import FlatguardError, UsageError
from flatguard.execution.progress import Silent
from flatguard.prompts import resume_prompts
from flatguard.runs.json_files import write_text
from flatguard.studies import STUDIES, find_study
from flatguard.studies.prompts import attacked_prompts
from flatguard.studies.reproduce import reproduce, reproduce_from_runs
from flatguard.studies.result import Result
from flatguard.studies.study import Study

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "reproduction"
PAGE = ROOT / "docs" / "reproduction.md"
FIGURE = ROOT / "docs" / "images" / "walter-fig15.svg"
ARCHITECTURES = ROOT / "tests" / "support" / "architectures.py"
_TRAINED = ROOT / "benchmarks" / "robust_training" / "cache"
_IMAGES = "cifar10_test_first1000.npz"
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CERTIFIED = (0.485, 0.456, 0.406), (0.225, 0.225, 0.225)
_CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Checkpoint:
    """A file in the real folder, the factory of its network, and its normalisation."""

    file: str
    factory: str
    statistics: tuple[tuple[float, ...], tuple[float, ...]]


REAL: dict[str, Checkpoint] = {
    "resnet20": Checkpoint("cifar10_resnet20_standard", "resnet20", _IMAGENET),
    "resnet56": Checkpoint("cifar10_resnet56_standard", "resnet56", _IMAGENET),
    "resnet20_rsfgsm": Checkpoint("cifar10_resnet20_rsfgsm_8_255", "resnet20", _IMAGENET),
    "cnn_wide_certified": Checkpoint("cifar10_cnn_wide_certified_2_255", "cnn_wide", _CERTIFIED),
    "cnn_a_pgd": Checkpoint("cifar10_cnn_a_pgd_2_255", "cnn_wide", _CIFAR),
}
DEMO, SMOLLM2 = "demo", "smollm2"


@dataclass(frozen=True)
class Piece:
    """A study, the models or runs that it looks at here, and on how many samples.

    Attributes:
        study: its name.
        models: by their names in `REAL`, or the demo's, or SmolLM2's.
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
    Piece("walter-fig15", (SMOLLM2,)),
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
    """Run the selected studies that are not kept yet, and draw the page."""
    options = _parser().parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    wanted = [piece for piece in PIECES if chosen(piece, options.only)]
    for number, piece in enumerate([] if options.draw else wanted, start=1):
        where = piece.runs or ", ".join(piece.models) or "no model"
        title = f"[{number}/{len(wanted)}] {piece.study} on {where}"
        if piece.file.is_file() and not options.fresh:
            print(f"{title}: kept")
            continue
        began = time.perf_counter()
        try:
            result = _run(piece)
        except FlatguardError as error:
            print(f"{title}: left out: {error}")
            continue
        write_text(piece.file, _as_json(result))
        verdicts = ", ".join(f"{claim.name} {claim.verdict}" for claim in result.claims)
        print(f"{title}: {verdicts}; {time.perf_counter() - began:.0f} s", flush=True)
        write_text(PAGE, page(STUDIES, kept()))
    write_text(PAGE, page(STUDIES, kept()))
    print(f"written to {PAGE.relative_to(ROOT)}")


def _as_json(result: Result) -> str:
    """A result as it is kept: no machine, floats with six digits."""
    found = result.model_dump(mode="json")
    found["versions"].pop("platform", None)
    return json.dumps(_rounded(found), indent=1, ensure_ascii=False)


def _rounded(value: Any) -> Any:
    """Six significant digits are enough to draw and to compare."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    found.add_argument("--only", default="", help="studies or models with one of these, by commas")
    found.add_argument("--fresh", action="store_true", help="measure again what is kept")
    found.add_argument("--draw", action="store_true", help="only draw the page from what is kept")
    return found


def chosen(piece: Piece, substrings: str) -> bool:
    """Whether `--only` names it; a whole name of a study is that study alone."""
    parts = [part for part in substrings.split(",") if part]
    names = {study.name for study in STUDIES}
    return not parts or any(
        part == piece.study if part in names else part in piece.file.stem for part in parts
    )


def _run(piece: Piece) -> Result:
    """One study on its models; the first model's data."""
    study = find_study(piece.study)
    if study.prompts is not None:
        return _of_prompts(study, piece)
    if piece.runs:
        return reproduce_from_runs(piece.study, _trained(piece.runs))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    data = None if not _real_images().is_file() else str(_real_images())
    targets = [_target(name) for name in piece.models]
    return reproduce(piece.study, targets, data=data, n_examples=piece.samples, device="cpu")


def _of_prompts(study: Study, piece: Piece) -> Result:
    """Attack the study's prompts, or go on with the run that was begun; then draw its figure."""
    began, folder = time.perf_counter(), ROOT / "reports" / piece.study
    if folder.is_dir():
        run = resume_prompts(folder)
    else:
        run = attacked_prompts(study, piece.models, None, {"device": "cpu"}, Silent(), folder)
    result = reproduce_from_runs(piece.study, [run.path])
    draw(result, FIGURE)
    return result.model_copy(update={"seconds": round(time.perf_counter() - began, 3)})


def _target(name: str) -> Any:
    """A model by its name in `REAL`, or the demo's."""
    from flatguard.targets import load_target

    if name == DEMO:
        return load_target(DEMO)
    known = REAL[name]
    mean, std = known.statistics
    found = load_target(
        str(_real_folder() / "checkpoints" / f"{known.file}.safetensors"),
        arch=f"{ARCHITECTURES}:{known.factory}",
        mean=mean,
        std=std,
    )
    # The page names no folder of this machine.
    return replace(found, source=f"{known.file}.safetensors, {known.factory}")


def _trained(pattern: str) -> list[Path]:
    """Runs of the networks that were trained here.

    Raises:
        UsageError: there are none.
    """
    found = sorted(path.parent for path in _TRAINED.glob(f"{pattern}/evidence"))
    if not found:
        raise UsageError("no network was trained and measured here; `make robust-training` does it")
    return found


def _real_folder() -> Path:
    """The folder of real checkpoints, named or beside the repository; it may not exist."""
    return Path(os.environ.get("FLATGUARD_REAL", ROOT.parent / "shared" / "real"))


def _real_images() -> Path:
    """The real images; without them the demo's are taken."""
    return _real_folder() / _IMAGES


def kept() -> list[Result]:
    """All results that are kept, by name."""
    return [Result.model_validate_json(file.read_bytes()) for file in sorted(KEPT.glob("*.json"))]


if __name__ == "__main__":
    main()
