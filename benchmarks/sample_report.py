"""The committed sample of a report, and the README's pictures of it.

python -m benchmarks.sample_report             evaluates the demo with its logits × 100
python -m benchmarks.sample_report --run RUN   draws from an earlier evaluation instead
python -m benchmarks.sample_report --schema    writes docs/report.schema.json only

Its detector is calibrated on the real images that `FLATGUARD_REAL` names: the demo has 20.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import flatguard
from flatguard.data import load_dataset
from flatguard.data.dataset import Dataset, Subset
from flatguard.detection.fitting import CalibrationSettings, fit_detector
from flatguard.execution import context
from flatguard.execution.progress import Silent
from flatguard.reporting.json_report import ReportDocument
from flatguard.reporting.report import write_report
from flatguard.request import make_request

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "reports" / "sample"
IMAGES = ROOT / "docs" / "images"
SCHEMA = ROOT / "docs" / "report.schema.json"
IMAGES_OF = "cifar10_test_first1000.npz"
SCALE = 100.0
KNOWING = 16
"""Images on which the detector itself is attacked."""

ARGUMENTS = {"steps": 10, "alpha": 2 / 255, "random_start": False}
COMMAND = (
    "flatguard", "evaluate", "--model", "demo", "--attack", "torchattacks:PGD",
    *(f"--attack-arg={name}={value}" for name, value in ARGUMENTS.items()),
    "--logit-scale", "100", "--checks", "standard",
)  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """A picture of the page: from which element on, how large, in which colours."""

    name: str
    element: str
    width: int
    height: int
    scheme: str = "light"


SHOTS = (
    Shot("report", "body", 1280, 800),
    Shot("report-figures", "#along-the-attack", 1280, 800),
    Shot("report-dark", "#discrepancy", 1280, 800, "dark"),
    Shot("report-narrow", "body", 390, 844),
)


def main() -> None:
    """Draw the sample, or write the schema."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--schema", action="store_true")
    asked = parser.parse_args()
    schema = json.dumps(ReportDocument.model_json_schema(), indent=1)
    SCHEMA.write_text(schema + "\n", "utf-8")
    if asked.schema:
        return
    images = calibration()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.run or evaluate(Path(folder) / "sample")
        add_detector(path, images, Path(folder) / "detector.json")
        report = write_report(flatguard.load_run(path))
        SAMPLE.mkdir(exist_ok=True)
        for file in (report.html, report.json, report.junit, report.markdown):
            shutil.copy(file, SAMPLE / file.name)
    take_pictures(SAMPLE / "report.html")


def evaluate(path: Path) -> Path:
    """The demo behind logits × 100: the same decisions, and nothing for a gradient to follow."""
    return flatguard.evaluate(
        "demo",
        "torchattacks:PGD",
        attack_args=ARGUMENTS,
        logit_scale=SCALE,
        checks="standard",
        out=path,
        command=COMMAND,
    ).path


def calibration() -> Dataset:
    """Clean images for the detector; the first 20 are the demo's own."""
    real = os.environ.get("FLATGUARD_REAL") or sys.exit("name the real images in FLATGUARD_REAL")
    whole = load_dataset(str(Path(real) / IMAGES_OF))
    return Subset(whole, range(20, len(whole)), f"{IMAGES_OF} but its first 20")


def add_detector(run: Path, images: Dataset, file: Path) -> None:
    """Flag the run's samples with a detector for the same logits, attacked knowingly itself."""
    request = make_request(
        model="demo", attack="torchattacks:PGD", eps="8/255", logit_scale=SCALE,
        n_examples=len(images),
    )  # fmt: skip
    whole = context.resolve(request, dataset=images)
    found = fit_detector(whole, CalibrationSettings(), KNOWING, Silent())
    found.save(file)
    flatguard.audit(run, detector=file)


def take_pictures(page: Path) -> None:
    """PNGs of 256 colours, which are enough for a page and small."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    program = next(
        found for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    )  # fmt: skip
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for shot in SHOTS:
            file = IMAGES / f"{shot.name}.png"
            view = browser.new_page(
                viewport={"width": shot.width, "height": shot.height},
                color_scheme="dark" if shot.scheme == "dark" else "light",
                reduced_motion="reduce",
            )
            view.goto(page.as_uri())
            view.locator(shot.element).evaluate("e => e.scrollIntoView()")
            view.screenshot(path=file)
            with Image.open(file) as image:
                image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
                    file, optimize=True
                )
            view.close()
        browser.close()


if __name__ == "__main__":
    main()
