"""Whole runs of models whose output or precision is not that of the plain network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support import digits
from support.architectures import resnet20
from torch import Tensor, nn

import flatguard
from flatguard.data import load_dataset
from flatguard.runs.run import Run
from flatguard.targets.normalized import Normalized

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SHOWN: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "dictionary": lambda z, x: {"hidden": x, "logits": z},
    "tuple": lambda z, x: (z, x),
}


class Returning(nn.Module):
    def __init__(self, net: nn.Module, returned: Callable[[Tensor, Tensor], Any]):
        super().__init__()
        self.net, self.returned = net, returned

    def forward(self, x: Tensor) -> Any:
        return self.returned(self.net(x), x)


def network(real: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    net = resnet20()
    net.load_state_dict(load_file(real / "checkpoints" / "cifar10_resnet20_standard.safetensors"))
    return Normalized(net.to(dtype), *IMAGENET).eval()


def audited(real: Path, model: nn.Module, n: int = 8, **how: Any) -> Run:
    batch = load_dataset(str(real / "cifar10_test_first1000.npz")).block(0, n)
    args = {"steps": 3, "random_start": False}
    data = (batch.images, batch.labels)
    return flatguard.evaluate(
        model.eval(), "torchattacks:PGD", data=data, eps="2/255", attack_args=args, **how
    )


@pytest.fixture(scope="module")
def bare(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("bare") / "run"
    return audited(real, Returning(network(real), lambda z, x: z), out=folder)


@pytest.mark.parametrize("kind", ["dictionary", "tuple"])
def test_a_renamed_output_gives_the_same_run(real: Path, bare: Run, kind: str) -> None:
    run = audited(real, Returning(network(real), SHOWN[kind]))
    assert run.samples.equals(bare.samples)
    assert run.trajectory.equals(bare.trajectory)
    assert run.summary["verdict"] == bare.summary["verdict"]
    assert run.manifest.target.weights_sha256 == bare.manifest.target.weights_sha256
    assert run.manifest.target.head == bare.manifest.target.head == "net.model.linear"


@pytest.mark.parametrize("log", [False, True])
def test_probabilities_have_the_verdict_of_logits(real: Path, bare: Run, log: bool) -> None:
    function = F.log_softmax if log else F.softmax
    run = audited(real, Returning(network(real), lambda z, x: function(z, dim=1)))
    assert any("robabilities" in note for note in run.manifest.target.notes)
    for key in ("verdict", "corrected_robust_accuracy"):
        assert run.summary[key] == bare.summary[key]


@pytest.mark.parametrize(("dtype", "n"), [(torch.bfloat16, 6), (torch.float16, 2)])
def test_results_are_verified_in_the_models_own_precision(
    real: Path, dtype: torch.dtype, n: int
) -> None:
    model = network(real, dtype)
    run = audited(real, model, n, checks="none")
    name = str(dtype).removeprefix("torch.")
    assert f"verified in the model's own {name}" in run.manifest.target.notes[0]
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in IMAGENET)
    with torch.no_grad():
        logits = model.get_submodule("model")(((run.adversarial(0) - mean) / std).to(dtype))
    assert run.samples["adv_prediction"].tolist() == logits.argmax(dim=1).tolist()
    output = next(each for each in flatguard.audit(run).findings if each.check == "output")
    assert f"computed in {name}: a float32 copy decides alike on {n} of {n}" in output.summary


class Binary(nn.Module):
    """A 3 or an 8? One value an image."""

    def __init__(self, gain: float, sigmoid: bool):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1))
        self.gain, self.sigmoid = gain, sigmoid

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.gain * self.net(x)
        return z.sigmoid() if self.sigmoid else z


@pytest.fixture(scope="module")
def two_digits() -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Trained weights, and the images and labels that they were not trained on."""
    images, labels = digits.digits()
    kept = (labels == 3) | (labels == 8)
    images, labels = images[kept], (labels[kept] == 8).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Binary(1.0, sigmoid=False)
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(60):
            loss = F.binary_cross_entropy_with_logits(
                model(images[:200])[:, 0], labels[:200].float()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.state_dict(), images[200:], labels[200:]


@pytest.mark.parametrize("gain", [1.0, 300.0])
def test_one_value_an_image_has_a_verdict(
    two_digits: tuple[dict[str, Tensor], Tensor, Tensor], gain: float
) -> None:
    weights, images, labels = two_digits
    found = []
    for sigmoid in (False, True):
        model = Binary(gain, sigmoid).eval()
        model.load_state_dict(weights)
        args = {"steps": 5, "random_start": False, "alpha": 0.04}
        run = flatguard.evaluate(
            model, "torchattacks:PGD", data=(images[:20], labels[:20]), eps="0.12", attack_args=args
        )
        read = "probability" if sigmoid else "logit"
        assert f"read as the {read} of class 1" in run.manifest.target.notes[0]
        assert run.summary["clean_accuracy"] > 0.9
        found.append((run.summary["verdict"], run.summary["corrected_robust_accuracy"]))
    assert found[0] == found[1]
    assert found[0][0] == ("masked" if gain > 1 else "consistent")
