"""The file of a fitted detector: read as written, bound to its model, refused when damaged."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import detectors, digits_target

from flatguard.detection import SharpnessDetector
from flatguard.detection.detector_file import SavedDetector
from flatguard.errors import DetectorError
from flatguard.evaluation import audit, evaluate, resume
from flatguard.targets import Target, prepare
from flatguard.targets.target import make_target


@pytest.fixture(scope="module")
def fitted(digits_net: Target) -> SharpnessDetector:
    return SharpnessDetector(digits_net, alpha=0.05).fit(digits_target.images(300))


def test_a_detector_is_read_as_it_was_written(
    fitted: SharpnessDetector, digits_net: Target, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "sub" / "d.json")
    again = SharpnessDetector.load(tmp_path / "sub" / "d.json", digits_net)
    images = torch.cat([digits_target.images(100, 300), torch.rand(50, 1, 8, 8)])
    np.testing.assert_array_equal(again.predict(images), fitted.predict(images))
    np.testing.assert_array_equal(again.score_samples(images), fitted.score_samples(images))
    assert again.get_params() == fitted.get_params()


def test_another_model_is_refused(fitted: SharpnessDetector, tmp_path: Path) -> None:
    fitted.save(tmp_path / "d.json")
    torch.manual_seed(3)
    from support.digits import digits_net as build

    other = prepare(make_target(build().eval(), "other", "here"), digits_target.images(4))
    with pytest.raises(DetectorError, match=r"fitted on digits \(weights .*, not on other"):
        SharpnessDetector.load(tmp_path / "d.json", other)


def test_the_same_weights_surer_are_refused(
    fitted: SharpnessDetector, digits_net: Target, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "d.json")
    surer = prepare(digits_net, digits_target.images(4), logit_scale=3.0)
    with pytest.raises(DetectorError, match="another --logit-scale or --head"):
        SharpnessDetector.load(tmp_path / "d.json", surer)


FACTOR = [1.0]


class Surer(torch.nn.Module):
    """Its weights stay, and what decides its answers stands elsewhere."""

    def __init__(self, where: str):
        super().__init__()
        self.inner, self.where = digits_target.target().model, where
        self.scale, self.beside = 1.0, [torch.nn.Identity()]
        self.factor = lambda: 1.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(images)
        return self.beside[0](logits * self.scale * FACTOR[0] * self.factor())


@pytest.mark.parametrize("where", ["attribute", "global", "closure", "module in a list"])
def test_the_same_weights_with_other_answers_are_refused(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, model = digits_target.images(300), Surer(where).eval()
    detector = SharpnessDetector(prepare(make_target(model, "digits", "here"), images[:4]))
    detector.fit(images).save(tmp_path / "d.json")
    same = prepare(make_target(Surer(where).eval(), "digits", "here"), images[:4])
    SharpnessDetector.load(tmp_path / "d.json", same)
    if where == "attribute":
        model.scale = 100.0
    elif where == "global":
        monkeypatch.setitem(globals(), "FACTOR", [100.0])
    elif where == "closure":
        monkeypatch.setattr(model, "factor", lambda: 100.0)
    else:
        model.beside[0] = torch.nn.Softshrink(3.0)  # type: ignore[assignment]
    with pytest.raises(DetectorError, match="answers otherwise now"):
        SharpnessDetector.load(tmp_path / "d.json", detector.target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "has format 99, written by a newer flatguard"),
        ({"kind": "pickle"}, "is no detector, or damaged: kind"),
        ({"extra": 1}, "is no detector, or damaged: extra"),
        ({"classes": {"-1": {"lower": 0, "upper": 1, "scores": [2, 1]}}}, "not in order"),
        ({"classes": {"-1": {"lower": 0, "upper": 1, "scores": []}}}, "damaged: classes"),
    ],
)
def test_damage_is_one_line(
    fitted: SharpnessDetector,
    digits_net: Target,
    tmp_path: Path,
    change: dict[str, object],
    message: str,
) -> None:
    file = tmp_path / "d.json"
    fitted.save(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DetectorError, match=message) as caught:
        SharpnessDetector.load(file, digits_net)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_command(digits_net: Target, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="make one with flatguard detect fit"):
        SharpnessDetector.load(tmp_path / "none.json", digits_net)


@pytest.mark.parametrize("where", ["lower", "eps"])
def test_a_detector_with_nan_is_damaged(
    fitted: SharpnessDetector, tmp_path: Path, where: str
) -> None:
    fitted.save(tmp_path / "d.json", adaptive=detectors.ADAPTIVE)
    values = json.loads((tmp_path / "d.json").read_text("utf-8"))
    of = values["adaptive"] if where == "eps" else values["classes"]["-1"]
    of[where] = float("nan")
    (tmp_path / "d.json").write_text(json.dumps(values), "utf-8")
    with pytest.raises(DetectorError, match=rf"damaged: .*{where}: Input should be a finite"):
        SavedDetector.open(tmp_path / "d.json")


def test_the_hash_is_that_of_the_file(fitted: SharpnessDetector, tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    fitted.save(file)
    opened = SavedDetector.open(file)
    assert opened.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert opened.model_copy().sha256 == opened.sha256
    again = SavedDetector.model_validate_json(file.read_text("utf-8"))  # as `write` writes it
    assert again.sha256 == opened.sha256
    file.write_text(json.dumps(json.loads(file.read_text("utf-8"))), "utf-8")
    assert SavedDetector.open(file).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_stump_and_the_other_facts_come_back(digits_net: Target, tmp_path: Path) -> None:
    images = digits_target.images(60)
    stump = SharpnessDetector(digits_net, calibration="stump")
    stump.fit(torch.cat([images, (images + 0.5).clamp(0, 1)]), np.repeat([1, -1], 60))
    stump.save(tmp_path / "s.json", adaptive=detectors.ADAPTIVE)
    saved = SavedDetector.open(tmp_path / "s.json")
    assert saved.stump == stump.thresholds_.stump
    assert saved.alpha is None
    assert saved.adaptive == detectors.ADAPTIVE
    assert detectors.ADAPTIVE.success == 0.97


def test_a_file_of_an_older_flatguard_has_no_answers(
    fitted: SharpnessDetector, digits_net: Target, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "d.json")
    values = json.loads((tmp_path / "d.json").read_text("utf-8"))
    del values["noise"]
    (tmp_path / "d.json").write_text(json.dumps(values), "utf-8")
    again = SharpnessDetector.load(tmp_path / "d.json", digits_net)
    assert again.noise_ is None
    again.save(tmp_path / "again.json")
    assert SavedDetector.open(tmp_path / "again.json").noise is None


def test_other_answers_are_refused_by_every_entry_point_that_has_the_model(
    fitted: SharpnessDetector, digits_net: Target, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "d.json")

    def darker(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (inputs[0] * 0.5,)

    other = copy.deepcopy(digits_net.model)
    other.register_forward_pre_hook(darker)  # no weight differs
    data = digits_target.images(4), digits_target.labels(4)
    ask: dict[str, Any] = {"eps": 0.1, "data": data, "checks": "none", "batch_size": 4}
    with pytest.raises(DetectorError, match="answers otherwise"):
        evaluate(other, "torchattacks:FGSM", detector=tmp_path / "d.json", out="no", **ask)
    run = evaluate(other, "torchattacks:FGSM", out="run", **ask)
    with pytest.raises(DetectorError, match="answers otherwise"):
        resume(run, model=other, data=data, detector=tmp_path / "d.json")
    with pytest.raises(DetectorError, match="answers otherwise"):
        audit(run, model=other, data=data, detector=tmp_path / "d.json", checks="fast")
