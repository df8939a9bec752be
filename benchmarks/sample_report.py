"""Writes the committed sample report and the README's screenshots of it.

python -m benchmarks.sample_report             evaluates the demo with its logits × 100
python -m benchmarks.sample_report --run RUN   takes an earlier evaluation instead
python -m benchmarks.sample_report --schema    writes docs/report.schema.json only

The detector is calibrated on the real images that `FLATGUARD_REAL` names: the demo has only 20.
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
ADAPTIVE = 16
"""How many images the adaptive attack on the detector uses."""

ARGUMENTS = {"steps": 10, "alpha": 2 / 255, "random_start": False}
COMMAND = (
    "flatguard", "evaluate", "--model", "demo", "--attack", "torchattacks:PGD",
    *(f"--attack-arg={name}={value}" for name, value in ARGUMENTS.items()),
    "--logit-scale", "100", "--checks", "standard",
)  # fmt: skip


@dataclass(frozen=True)
class Screenshot:
    """A screenshot of the page: the element at its top, its size, its colour scheme."""

    name: str
    element: str
    width: int
    height: int
    scheme: str = "light"


SCREENSHOTS = (
    Screenshot("report", "body", 1280, 800),
    Screenshot("report-figures", "#along-the-attack", 1280, 800),
    Screenshot("report-dark", "#discrepancy", 1280, 800, "dark"),
    Screenshot("report-narrow", "body", 390, 844),
)


def main() -> None:
    """Write the sample, or the schema only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--schema", action="store_true")
    options = parser.parse_args()
    schema = json.dumps(ReportDocument.model_json_schema(), indent=1)
    SCHEMA.write_text(schema + "\n", "utf-8")
    if options.schema:
        return
    images = calibration()
    with tempfile.TemporaryDirectory() as folder:
        path = options.run or evaluate(Path(folder) / "sample")
        add_detector(path, images, Path(folder) / "detector.json")
        report = write_report(flatguard.load_run(path))
        SAMPLE.mkdir(exist_ok=True)
        for file in (report.html, report.json, report.junit, report.sarif, report.markdown):
            shutil.copy(file, SAMPLE / file.name)
    take_screenshots(SAMPLE / "report.html")


def evaluate(path: Path) -> Path:
    """The demo with its logits × 100: the same decisions, but gradients that vanish."""
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
    real = os.environ.get("FLATGUARD_REAL") or sys.exit(
        "set FLATGUARD_REAL to the folder of real images"
    )
    whole = load_dataset(str(Path(real) / IMAGES_OF))
    return Subset(whole, range(20, len(whole)), f"{IMAGES_OF} but its first 20")


def add_detector(run: Path, images: Dataset, file: Path) -> None:
    """Flag the run's samples with a detector for the same logits, attacked adaptively too."""
    request = make_request(
        model="demo", attack="torchattacks:PGD", eps="8/255", logit_scale=SCALE,
        n_examples=len(images),
    )  # fmt: skip
    whole = context.resolve(request, dataset=images)
    found = fit_detector(whole, CalibrationSettings(), ADAPTIVE, Silent())
    found.save(file)
    flatguard.audit(run, detector=file)


def take_screenshots(page: Path) -> None:
    """Save screenshots as PNG files of 256 colours, which keeps them small."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    program = next(
        found for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    )  # fmt: skip
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for shot in SCREENSHOTS:
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
