"""Models and data from Python."""

from typing import Any

import pytest
import torch
from support.architectures import tiny

import flatguard
from flatguard.errors import FlatguardError, UsageError
from flatguard.execution.origin import BY_NAME, caller_state_kept, origin_of, torch_threads

Images = tuple[torch.Tensor, torch.Tensor]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ((torch.rand(3, 8, 8), torch.tensor(1)), "expected images"),
        ((torch.rand(2, 3, 8, 8), [[1], [0]]), None),
        ((torch.rand(2, 3, 8, 8).requires_grad_(), torch.tensor([0, 1])), None),
        ((torch.rand(2, 3, 8, 8), ["a", "b"]), "expected numbers"),
        ("no such data", "no data set"),
        ((torch.rand(2, 3, 8, 8),), "expected a data set's name or path, a pair"),
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


def test_the_callers_state_comes_back() -> None:
    model = tiny().train()
    threads = torch.get_num_threads()
    with torch.no_grad():
        with caller_state_kept(model, "a name"), torch_threads(threads + 1):
            model.eval()
            assert torch.is_grad_enabled()
            assert torch.get_num_threads() == threads + 1
        assert not torch.is_grad_enabled()
    assert model.training
    assert torch.get_num_threads() == threads


def test_names_are_loaded_by_the_request() -> None:
    assert origin_of("demo", "cifar10") == origin_of(None, None) == BY_NAME
    with pytest.raises(UsageError, match="expected a name, a path, a module or a Target, got int"):
        origin_of(3, None)  # type: ignore[arg-type]
