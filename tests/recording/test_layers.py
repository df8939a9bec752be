"""Deeper layers: which they are, and estimates that agree with what is known exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.architectures import resnet20, tiny
from torch import nn

import flatguard
from flatguard.errors import EnvironmentProblem, RunFolderError, UsageError
from flatguard.recording.layers import CLOSED_FORM, METHOD, LayerMedian, last_layers, layer_median
from flatguard.targets.head import find_head

Images = tuple[torch.Tensor, torch.Tensor]


def measured(model: nn.Module, data: Images, out: Path, **fields: Any) -> flatguard.Run:
    how: dict[str, Any] = {"eps": "8/255", "layers": 1, "attack_args": {"steps": 9}, **fields}
    return flatguard.evaluate(model, "torchattacks:PGD", data=data, out=out, **how)


def test_the_layers_before_the_head_in_the_order_they_run() -> None:
    torch.manual_seed(0)
    model = resnet20().eval()
    image = torch.rand(1, 3, 32, 32)
    head = find_head(model, image).head
    found = last_layers(model, head, image, 3)
    assert [(layer.depth, layer.name) for layer in found] == [
        (0, "linear"), (1, "layer3.2.conv2"), (2, "layer3.2.conv1"), (3, "layer3.1.conv2"),
    ]  # fmt: skip
    assert len(last_layers(model, head, image, 1000)) == 20


class Backwards(nn.Module):
    """Defines its layers in another order than they run in."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.b, self.a = nn.Linear(8, 4), nn.Linear(8, 8), nn.Linear(192, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.a(x.flatten(1)).relu()).relu())


def test_the_order_is_that_of_the_forward_pass() -> None:
    model, image = Backwards().eval(), torch.rand(1, 3, 8, 8)
    found = last_layers(model, find_head(model, image).head, image, 5)
    assert [layer.name for layer in found] == ["head", "b", "a"]


def test_a_run_with_deeper_layers(model: nn.Module, tiny_data: Images, tmp_path: Path) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # a frozen network has a Hessian all the same
    run = measured(model, tiny_data, tmp_path / "run", layer_samples=3)
    plain = measured(model, tiny_data, tmp_path / "plain", layers=None)
    # The passes of the estimator are no calls of the attack, and change none of its bits.
    assert run.blocks[0].calls == plain.blocks[0].calls == 9
    assert run.blocks[0].sample_backwards == plain.blocks[0].sample_backwards
    assert run.adversarial_sha256() == plain.adversarial_sha256()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    table = run.layers
    assert list(table.columns) == [
        "sample", "layer", "depth", "point", "call", "kappa", "standard_error", "method",
        "matvecs", "repeats",
    ]  # fmt: skip
    assert set(table["sample"]) == {0, 1, 2}
    assert dict(zip(table["layer"], table["depth"], strict=True)) == {"3": 0, "1": 1}
    way = table[(table["sample"] == 1) & (table["layer"] == "1")]
    assert way["point"].tolist() == ["clean", *["attack"] * 5, "adversarial"]
    assert way["call"].dropna().tolist() == [0, 2, 4, 6, 8]
    run.verify()
    assert "layers.parquet" in run.blocks[0].files
    assert run.seconds("layers") > 0
    with pytest.raises(RunFolderError, match="ask for them with --layers"):
        _ = plain.layers


def test_the_head_agrees_with_its_closed_form(
    model: nn.Module, tiny_data: Images, tmp_path: Path
) -> None:
    run = measured(model, tiny_data, tmp_path / "run", layer_samples=12)
    head = run.layers[run.layers["depth"] == 0]
    exact = head[head["method"] == CLOSED_FORM].reset_index(drop=True)
    found = head[head["method"] == METHOD].reset_index(drop=True)
    assert len(exact) == len(found) == 12 * 7
    off = (found["kappa"] - exact["kappa"]).abs() / found["standard_error"]
    # With 8 repeats the error is itself uncertain: Student's t has 2% beyond 3 errors.
    assert (off <= 3).mean() > 0.9
    # Averaged over 84 independent probes, the estimator has no bias that 3 errors do not hold.
    error = np.sqrt((found["standard_error"] ** 2).sum())
    assert abs((found["kappa"] - exact["kappa"]).sum()) <= 3 * error
    clean = exact[exact["point"] == "clean"]["kappa"]
    assert np.log(clean).tolist() == pytest.approx(
        run.samples["clean_log_kappa"].tolist(), abs=1e-5
    )
    end = exact[exact["point"] == "adversarial"]["kappa"]
    assert np.log(end).tolist() == pytest.approx(run.samples["adv_log_kappa"].tolist(), abs=1e-5)


def test_a_deeper_layer_agrees_with_its_dense_hessian(
    model: nn.Module, tiny_data: Images, tmp_path: Path
) -> None:
    run = measured(model, tiny_data, tmp_path / "run", layer_samples=4)
    images, labels = torch.cat([tiny_data[0], run.adversarial(0)]), tiny_data[1].repeat(2)
    model.requires_grad_(False)
    weight = model[1].weight
    outcome = []
    for row in run.layers[(run.layers["depth"] == 1)].itertuples():
        if row.point == "attack":
            continue
        i = row.sample + 12 * (row.point == "adversarial")
        # tr H at layer 1, by hand: cross-entropy's Hessian in z through W diag(relu') and x.
        x = images[i].flatten().double()
        active = (weight.double() @ x + model[1].bias.double() > 0).double()
        w = model[3].weight.double() * active
        p = model(images[i][None]).double().softmax(1)[0]
        inner = w.T @ (torch.diag(p) - torch.outer(p, p)) @ w
        kappa = float(weight.double().square().sum() * inner.trace() * x.square().sum())
        outcome.append(abs(row.kappa - kappa) / row.standard_error)
        assert labels[i] == run.samples["label"][row.sample]
    assert len(outcome) == 8
    assert np.mean(np.array(outcome) <= 3) >= 7 / 8


def test_blocks_after_the_chosen_samples_have_no_layers(
    model: nn.Module, tiny_data: Images, tmp_path: Path
) -> None:
    run = measured(model, tiny_data, tmp_path / "run", layer_samples=5, batch_size=4)
    assert ["layers.parquet" in block.files for block in run.blocks] == [True, True, False]
    assert set(run.layers["sample"]) == {0, 1, 2, 3, 4}
    again = measured(model, tiny_data, tmp_path / "again", layer_samples=5, batch_size=4)
    pd.testing.assert_frame_equal(run.layers, again.layers)


def test_a_missing_package_is_named_before_the_attack(
    model: nn.Module, tiny_data: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft = nn.Sequential(model, nn.Softmax(1)).eval()
    with pytest.raises(UsageError, match="--layers needs the model's head: the model's output"):
        measured(soft, tiny_data, tmp_path / "run")
    normed = nn.Sequential(*model[:3], nn.utils.parametrizations.weight_norm(model[3])).eval()
    with pytest.raises(UsageError, match="that of the head 3 is computed"):
        measured(normed, tiny_data, tmp_path / "run")
    monkeypatch.setitem(__import__("sys").modules, "curvlinops", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'flatguard\[layers\]'"):
        measured(tiny().eval(), tiny_data, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_median_and_its_error() -> None:
    rows = {"layer": "a", "point": "clean", "method": METHOD}
    table = pd.DataFrame([
        {**rows, "kappa": kappa, "standard_error": error}
        for kappa, error in ((1.0, 9.0), (4.0, 0.3), (2.0, 0.4), (100.0, 9.0), (np.nan, np.nan))
    ])  # fmt: skip
    assert layer_median(table, "a", "clean") == LayerMedian(3.0, pytest.approx(0.25))
    assert layer_median(table.iloc[:1], "a", "clean") == LayerMedian(1.0, 9.0)
    assert layer_median(table.iloc[4:], "a", "clean") is None
    assert str(LayerMedian(0.01234, 0.00345)) == "0.012 ± 0.003"
