"""Resolving a spec, and runs whose numbers are known."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.architectures import tiny
from torch import nn

import flatguard
from flatguard.data.arrays import ArrayDataset
from flatguard.errors import AttackError, DataError, FlatguardError, ModelError, UsageError
from flatguard.execution.context import resolve
from flatguard.recording.recorder import Recorder
from flatguard.request import make_request
from flatguard.targets import Defaults, make_target

Images = tuple[torch.Tensor, torch.Tensor]


def context(attack: str, defaults: Defaults | None = None, **fields: Any) -> Any:
    torch.manual_seed(0)
    target = make_target(tiny(), "tiny", "a test", defaults)
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    dataset = ArrayDataset(images, torch.arange(12) % 4, "random")
    return resolve(make_request(model="tiny", attack=attack, **fields), target, dataset)


def test_defaults_are_filled_in() -> None:
    resolved = context("torchattacks:pgd", Defaults(norm="Linf", eps="8/255")).request
    assert (resolved.norm, resolved.eps, resolved.attack) == ("Linf", "8/255", "torchattacks:PGD")
    assert (resolved.n_examples, resolved.batch_size, resolved.device) == (12, 128, "cpu")
    assert resolved.dataset == "random"


def test_one_norm_needs_no_naming() -> None:
    assert context("torchattacks:PGDL2", eps="0.5").request.norm == "L2"
    none = context("torchattacks:GN").request
    assert (none.norm, none.eps) == ("none", None)


@pytest.mark.parametrize(
    ("attack", "fields", "error", "expected"),
    [
        ("torchattacks:PGD", {"norm": "L2", "eps": "1"}, AttackError, "--norm L2 does not agree"),
        ("torchattacks:PGD", {}, UsageError, "--eps is needed: tiny has no radius"),
        ("apgd-ce", {"eps": "8/255"}, UsageError, "--norm is needed: apgd-ce measures Linf, L2"),
        ("torchattacks:GN", {"eps": "8/255"}, UsageError, "--eps has no meaning"),
        ("torchattacks:PGD", {"eps": "1", "n_examples": 13}, DataError, "has only 12 images"),
        ("torchattacks:PGD", {"eps": "1", "device": "cuda:77"}, FlatguardError, "use cpu"),
        ("torchattacks:PGD", {"eps": "1", "device": "abacus"}, FlatguardError, "use cpu"),
    ],
)
def test_what_does_not_fit(
    attack: str, fields: dict[str, Any], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error) as caught:
        context(attack, **fields)
    assert expected in str(caught.value)


def test_a_default_radius_belongs_to_its_norm() -> None:
    defaults = Defaults(norm="Linf", eps="8/255")
    with pytest.raises(UsageError, match="--eps is needed"):
        context("torchattacks:PGDL2", defaults)


def test_a_corruption_entry_names_both() -> None:
    with pytest.raises(UsageError, match="name both with --norm and --eps"):
        context("torchattacks:PGD", Defaults(dataset="cifar10"), norm="Linf")


class Half(nn.Module):
    """Decides by the mean brightness: its best L∞ attack is known exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-8.0], [8.0]]))
            self.head.bias.copy_(torch.tensor([4.0, -4.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1).mean(1, keepdim=True))


@pytest.mark.parametrize("attack", ["torchattacks:PGD", "apgd-ce", "foolbox:LinfPGD", "square"])
def test_robust_accuracy_of_a_model_whose_optimum_is_known(attack: str) -> None:
    """Mean brightness m moves by at most eps, so x is robust exactly if |m - 1/2| > eps."""
    brightness = torch.tensor([0.1, 0.3, 0.4, 0.44, 0.47, 0.53, 0.56, 0.6, 0.7, 0.9])
    images = brightness.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    labels = (brightness > 0.5).long()
    run = flatguard.evaluate(
        Half().eval(), attack, data=(images, labels), eps="0.05", norm="Linf", seed=1
    )
    assert run.summary["clean_accuracy"] == 1.0
    assert run.summary["robust_accuracy"] == 0.8
    assert run.samples["robust"].tolist() == [True] * 4 + [False] * 2 + [True] * 4
    assert run.summary["outside_budget"] == 0


def test_a_minimum_norm_attack_counts_only_within_eps() -> None:
    """DeepFool fools all, at distances from 0.1 to 2.8; only the near ones count."""
    brightness = torch.tensor([0.1, 0.48, 0.52, 0.9])
    images = brightness.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    labels = (brightness > 0.5).long()
    run = flatguard.evaluate(
        Half().eval(), "foolbox:L2DeepFoolAttack", data=(images, labels), eps="0.3",
        attack_args={"candidates": 2},
    )  # fmt: skip
    assert run.samples["robust"].tolist() == [True, False, False, True]
    fooled = (run.samples["adv_prediction"] != run.samples["label"]).tolist()
    assert fooled == [True] * 4
    assert run.summary["outside_budget"] == 2


def test_misclassified_images_are_not_robust(tiny_data: Images) -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    x, _ = tiny_data
    right = model(x).argmax(1)
    labels = torch.where(torch.arange(12) < 6, right, (right + 1) % 4)
    run = flatguard.evaluate(model, "torchattacks:VANILA", data=(x, labels))
    assert run.summary["clean_accuracy"] == run.summary["robust_accuracy"] == 0.5
    assert run.summary["clean_interval"] == run.summary["robust_interval"]


class TurnsNan(nn.Module):
    """NaN for images that are brighter than 0.9 or darker than 0.6 on average."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        return torch.where((mean > 0.9) | (mean < 0.6), torch.nan, self.net(x))


def test_nan_on_a_later_image_leaves_nothing_behind(tmp_path: Path) -> None:
    x = torch.full((12, 3, 8, 8), 0.7)
    x[10] = 0.95
    with pytest.raises(ModelError, match="1 of the clean images, the first of them sample 10"):
        flatguard.evaluate(
            TurnsNan(),
            "torchattacks:FGSM",
            data=(x, torch.zeros(12, dtype=torch.long)),
            eps="1/255",
            out=tmp_path / "run",
        )
    assert list(tmp_path.iterdir()) == []


def test_nan_under_attack_is_no_robustness() -> None:
    x = torch.full((3, 3, 8, 8), 0.89)
    model = TurnsNan().eval()
    y = model(x).argmax(1)
    run = flatguard.evaluate(
        model, "torchattacks:GN", data=(x, y), attack_args={"std": 5.0}, seed=3
    )
    assert run.summary["clean_accuracy"] == 1.0
    assert run.samples["adv_margin"].isna().all()  # noise drags every mean to one half
    assert run.summary["robust_accuracy"] == 0.0


class FailsUnderAttack(nn.Module):
    """Raises at a given call of those that an attack differentiates."""

    def __init__(self, at: int, error: BaseException):
        super().__init__()
        self.net, self.left, self.error = tiny(), at - 1, error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            if not self.left:
                raise self.error
            self.left -= 1
        return self.net(x)


OUT_OF_LUCK = RuntimeError("out of luck\nand more")


@pytest.mark.parametrize("attack", ["torchattacks:PGD", "foolbox:LinfPGD", "apgd-ce"])
def test_an_attack_that_fails_in_the_only_block_is_readable(
    attack: str, tiny_data: Images, tmp_path: Path
) -> None:
    expected = r"failed: RuntimeError: out of luck; the incomplete run, .*, is in .*run$"
    with pytest.raises(AttackError, match=expected):
        flatguard.evaluate(
            FailsUnderAttack(7, OUT_OF_LUCK), attack, data=tiny_data, eps="8/255", norm="Linf",
            out=tmp_path / "run",
        )  # fmt: skip
    run = flatguard.load_run(tmp_path / "run")
    assert not run.complete
    assert run.blocks == []
    (failure,) = run.failures
    assert failure.error == f"{attack} failed: RuntimeError: out of luck"
    assert failure.plan == run.manifest.blocks[0]
    trajectory = run.failed_trajectory(0)
    assert len(trajectory) == failure.sample_forwards
    assert trajectory["call"].max() == failure.calls - 1
    attacked = trajectory[~trajectory["bookkeeping"]]
    assert attacked["call"].nunique() >= 6
    assert attacked["loss"].notna().all()
    assert not list((tmp_path / "run").rglob(".*"))  # nothing half-written


def test_an_attack_that_fails_keeps_the_blocks_before_it(tiny_data: Images, tmp_path: Path) -> None:
    with pytest.raises(AttackError, match="out of luck; the incomplete run"):
        flatguard.evaluate(
            FailsUnderAttack(8, OUT_OF_LUCK), "torchattacks:PGD", data=tiny_data, eps="1/255",
            batch_size=4, attack_args={"steps": 5}, out=tmp_path / "run",
        )  # fmt: skip
    run = flatguard.load_run(tmp_path / "run")
    assert not run.complete
    assert run.samples["sample"].tolist() == [0, 1, 2, 3]
    assert run.failed_trajectory(1)["sample"].tolist() == [4, 5, 6, 7] * 2
    with pytest.raises(FlatguardError, match="has no summary"):
        _ = run.summary
    with pytest.raises(FlatguardError, match=r"block 0 did not fail; failed blocks \[1\]"):
        run.failed_trajectory(0)


def test_an_interrupted_attack_is_readable(tiny_data: Images, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        flatguard.evaluate(
            FailsUnderAttack(3, KeyboardInterrupt()), "torchattacks:PGD", data=tiny_data,
            eps="1/255", out=tmp_path / "run",
        )  # fmt: skip
    run = flatguard.load_run(tmp_path / "run")
    assert [failure.error for failure in run.failures] == ["KeyboardInterrupt"]
    assert run.failed_trajectory(0)["call"].nunique() == 2


def test_an_attack_that_fails_at_its_first_call_leaves_nothing(
    tiny_data: Images, tmp_path: Path
) -> None:
    with pytest.raises(AttackError, match=r"out of luck$"):
        flatguard.evaluate(
            FailsUnderAttack(1, OUT_OF_LUCK), "torchattacks:PGD", data=tiny_data, eps="1/255",
            out=tmp_path / "run",
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_nan_from_step_seven_on_is_reported_at_that_step(tiny_data: Images) -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.steps = tiny(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.steps += torch.is_grad_enabled() and x.requires_grad
            return self.net(x) * (float("nan") if self.steps > 7 else 1.0)

    run = flatguard.evaluate(Breaks(), "torchattacks:PGD", data=tiny_data, eps="8/255")
    assert run.complete
    assert run.summary["warnings"] == [
        "the model gave NaN or infinite logits from call 7 on (samples 0 to 11)"
    ]
    lost = run.trajectory.groupby("call")["loss"].apply(lambda loss: loss.isna().all())
    assert lost.tolist() == [False] * 7 + [True] * 3
    assert run.summary["robust_accuracy"] == 0.0  # NaN decides nothing, so nothing is right


def test_a_scale_does_not_compound(tiny_data: Images) -> None:
    """The caller's module is scaled in a copy, so a second run is the same as the first."""
    torch.manual_seed(0)
    model = tiny().eval()
    runs = [
        flatguard.evaluate(
            model, "torchattacks:FGSM", data=tiny_data, eps=8 / 255, logit_scale=100.0
        )
        for _ in range(2)
    ]
    assert runs[0].summary["adversarial_sha256"] == runs[1].summary["adversarial_sha256"]
    assert runs[0].samples["clean_margin"].equals(runs[1].samples["clean_margin"])


def test_a_model_that_takes_only_few_images_at_once(tiny_data: Images) -> None:
    class Few(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert len(x) <= 8, "at most eight"
            return self.net(x)

    with pytest.raises(ModelError, match=r"fails on 12 images at once: .*--batch-size"):
        flatguard.evaluate(Few(), "torchattacks:FGSM", data=tiny_data, eps="1/255")
    run = flatguard.evaluate(Few(), "torchattacks:FGSM", data=tiny_data, eps="1/255", batch_size=8)
    assert run.complete


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ((torch.rand(3, 8, 8), torch.tensor(1)), "expected images"),
        ((torch.rand(2, 3, 8, 8), [[1], [0]]), None),
        ((torch.rand(2, 3, 8, 8).requires_grad_(), torch.tensor([0, 1])), None),
        ((torch.rand(2, 3, 8, 8), ["a", "b"]), "expected numbers"),
        ("no such data", "no data set"),
        ((torch.rand(2, 3, 8, 8),), "expected a data set's name or a pair"),
    ],
)
def test_data_from_python(data: Any, expected: str | None) -> None:
    if expected is None:
        assert flatguard.evaluate(tiny(), "torchattacks:FGSM", data=data, eps=0.03).complete
        return
    with pytest.raises(FlatguardError, match=expected):
        flatguard.evaluate(tiny(), "torchattacks:FGSM", data=data, eps=0.03)


def test_a_script_from_python(tiny_data: Images) -> None:
    script = torch.jit.trace(tiny().eval(), tiny_data[0])
    run = flatguard.evaluate(script, "torchattacks:FGSM", data=tiny_data, eps=0.03, norm="linf")
    assert run.request.norm == "Linf"
    assert run.samples["clean_log_kappa"].isna().all()


def test_the_same_spec_gives_the_same_bits_and_another_seed_does_not(tiny_data: Images) -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    digests = []
    for seed in (0, 0, 1):
        np.random.seed(seed + 5)  # the caller's generators do not matter
        torch.manual_seed(seed + 9)
        run = flatguard.evaluate(
            model, "torchattacks:PGD", data=tiny_data, eps="8/255", batch_size=5, seed=seed
        )
        digests.append(run.summary["adversarial_sha256"])
    assert digests[0] == digests[1] != digests[2]


def recorders() -> set[int]:
    return {id(found) for found in gc.get_objects() if type(found) is Recorder}


def test_a_block_is_forgotten_when_it_is_done(tmp_path: Path) -> None:
    """Without the collector of cycles, which may wait for many blocks."""
    gc.collect()
    before = recorders()  # failed tests keep theirs
    gc.disable()
    try:
        flatguard.evaluate(
            tiny().eval(), "torchattacks:PGD", data=(torch.rand(4, 3, 8, 8), torch.arange(4)),
            eps="1/255", batch_size=2, checks="none", out=tmp_path / "run",
        )  # fmt: skip
        assert recorders() <= before
    finally:
        gc.enable()
