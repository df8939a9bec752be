"""A request is resolved: defaults and contradictions."""

from typing import Any

import pytest
import torch
from support.architectures import tiny
from torch import nn

import flatguard
from flatguard.data.arrays import ArrayDataset
from flatguard.errors import AttackError, DataError, FlatguardError, ModelError, UsageError
from flatguard.execution.context import resolve
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
        (
            "torchattacks:PGD",
            {"norm": "L2", "eps": "8/255"},
            AttackError,
            "--norm L2 does not agree",
        ),
        ("torchattacks:PGD", {}, UsageError, "--eps is needed: tiny has no radius"),
        ("apgd-ce", {"eps": "8/255"}, UsageError, "--norm is needed: apgd-ce measures Linf, L2"),
        ("torchattacks:GN", {"eps": "8/255"}, UsageError, "--eps has no meaning"),
        ("torchattacks:PGD", {"eps": "8/255", "n_examples": 13}, DataError, "has only 12 images"),
        ("torchattacks:PGD", {"eps": "8/255", "device": "cuda:77"}, FlatguardError, "use cpu"),
        ("torchattacks:PGD", {"eps": "8/255", "device": "abacus"}, FlatguardError, "use cpu"),
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
