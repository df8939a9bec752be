"""Weights as people save them: which are taken, what is reported, and what is refused."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from flatguard.errors import ModelError, UsageError
from flatguard.targets.weights import Loaded, find_weights, load_weights, without_weights


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))


IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OLD = net(1).state_dict()
AVERAGE = net(2).state_dict()


def under(prefix: str, state: dict[str, Any] = OLD) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def loaded(model: nn.Module, content: Any, wanted: str | None = None) -> Loaded:
    return load_weights(model, find_weights(content), wanted, "w.pt", "net.py:make")


def answers(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IMAGES)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (OLD, ""),
        ({"state_dict": OLD, "epoch": 3, "loss": torch.tensor(0.5)}, "state_dict"),
        ({"checkpoint": {"best": {"net": OLD}}}, "checkpoint.best.net"),
        (under("module."), ""),
        (under("_orig_mod."), ""),
        (under("module._orig_mod."), ""),
        (under("model."), ""),
        (under("net.module."), ""),
        ({"n_averaged": torch.tensor(3), **under("module.")}, ""),
        ({"state_dict": under("model.") | {"criterion.weight": torch.ones(5)}}, "state_dict/model"),
        ({"state_dict": under("net.") | {"acc.tp": torch.ones(5)}}, "state_dict/net"),
        ({"model": net(1), "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, "model"),
        (OLD | {"0.total_ops": torch.ones(1), "total_params": torch.ones(1)}, ""),
        ({k: v for k, v in OLD.items() if not k.endswith("num_batches_tracked")}, ""),
        ({"state_dict_ema": AVERAGE, "state_dict": OLD}, "state_dict"),
        ({"ema": {"model": AVERAGE}, "model": OLD}, "model"),
        (under("model.") | under("ema_model.", AVERAGE), "/model"),
        ({"teacher": AVERAGE, "student": OLD}, "student"),
        (under("teacher.", AVERAGE) | under("student."), "/student"),
        ({"optimizer": {}, "model_ema": OLD}, "model_ema"),
        ({"n_averaged": torch.tensor(3), **under("swa_model.module.")}, "/swa_model"),
        (
            {"swa_model.n_averaged": torch.tensor(3)}
            | under("swa_model.module.", AVERAGE)
            | under("model."),
            "/model",
        ),
        ((OLD, {"epoch": 3}), "0"),
    ],
)
def test_the_usual_weights_are_taken(content: Any, key: str) -> None:
    model = net()
    found = loaded(model, content)
    assert found.key == key
    assert torch.equal(answers(model), answers(net(1)))


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, lambda m: nn.Sequential(m), torch.compile],
    ids=["data-parallel", "inside another", "compiled"],
)
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_factory_may_wrap_its_network(wrap: Callable[[nn.Module], Any], prefix: str) -> None:
    model = net()
    loaded(wrap(model), under(prefix))
    assert torch.equal(answers(model), answers(net(1)))


def test_a_wrapper_in_the_middle_of_a_name() -> None:
    model = nn.Sequential(net(), nn.Identity())
    state = {f"0.module.{key}": value for key, value in OLD.items()}
    loaded(model, state)
    assert torch.equal(answers(model), answers(net(1)))


def test_several_sets_are_named_and_can_be_chosen() -> None:
    content = {"state_dict": OLD, "state_dict_ema": AVERAGE}
    found = loaded(net(), content)
    assert found.notes == (
        "w.pt holds several sets of weights: state_dict is taken; --weights-key chooses "
        "state_dict_ema",
    )
    model = net()
    assert loaded(model, content, "state_dict_ema").key == "state_dict_ema"
    assert torch.equal(answers(model), answers(net(2)))
    model = net()
    flat = under("model.") | under("ema_model.", AVERAGE)
    assert loaded(model, flat, "ema_model").key == "/ema_model"
    assert torch.equal(answers(model), answers(net(2)))
    assert loaded(net(), flat).notes == (
        "w.pt holds several sets of weights: model is taken; --weights-key chooses ema_model",
    )
    with pytest.raises(UsageError, match=r"has no weights 'ema'; its keys are: state_dict, state"):
        loaded(net(), content, "ema")
    with pytest.raises(ModelError, match="several sets of weights that fit: best, last; choose"):
        loaded(net(), {"best": OLD, "last": AVERAGE})


def test_what_is_left_out_is_named() -> None:
    found = loaded(net(), {"state_dict": under("model.") | {"loss.weight": torch.ones(5)}})
    assert found.notes == ("w.pt: left out, because the network has no such part: loss.weight",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s.pop("3.bias"), "missing: 3.bias"),
        (lambda s: s.pop("1.running_mean"), "missing: 1.running_mean"),
        (lambda s: s.update({"4.weight": torch.ones(2)}), "unexpected: model.4.weight"),
        (lambda s: s.update({"3.weight": torch.ones(7, 144)}), "(7, 144) for (5, 144)"),
    ],
)
def test_a_refusal_names_the_keys_of_the_file(
    change: Callable[[dict[str, Any]], None], expected: str
) -> None:
    state = copy.copy(OLD)
    change(state)
    with pytest.raises(ModelError) as caught:
        loaded(net(), {"state_dict": under("model.", state)})
    message = str(caught.value)
    assert expected in message
    assert "does not fit --arch net.py:make" in message
    assert "the file holds model.0.weight, model.0.bias" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["normalize.mean", "head.weight", "backbone2.0.weight"])
def test_what_may_decide_answers_is_not_left_out(name: str) -> None:
    with pytest.raises(ModelError, match=f"unexpected: {name}; the file holds"):
        loaded(net(), under("model.") | {name: torch.ones(3)})


@pytest.mark.parametrize("beside", [None, "teacher", "old"])
def test_lazy_layers_take_the_shapes_of_the_file(beside: str | None) -> None:
    model = net()
    model[3] = nn.LazyLinear(5)  # type: ignore[index]
    other = {**AVERAGE, "3.weight": torch.ones(5, 7)}
    loaded(model, OLD if beside is None else {beside: other, "model": OLD})
    assert torch.equal(answers(model), answers(net(1)))


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_of_both_kinds(old: bool) -> None:
    """A file of the old kind fits the new one: torch translates its names."""
    saved = net(1)
    (weight_norm if old else parametrizations.weight_norm)(saved[3])  # type: ignore[index]
    model = net()
    parametrizations.weight_norm(model[3])  # type: ignore[index]
    loaded(model, under("module.", saved.state_dict()))
    assert torch.allclose(answers(model), answers(net(1)), atol=1e-6)


NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight": weight_norm,
    "spectral": spectral_norm,
    "weight, parametrized": parametrizations.weight_norm,
    "spectral, parametrized": parametrizations.spectral_norm,
}


@pytest.mark.parametrize("saved", NORMS)
@pytest.mark.parametrize("built", NORMS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_norms_of_weights_fit_both_ways(saved: str, built: str) -> None:
    """Parametrizations and torch's older hooks have other names for the same values."""
    given, model = net(1), net()
    NORMS[saved](given[3])  # type: ignore[index]
    given(IMAGES)
    NORMS[built](model[3])  # type: ignore[index]
    if saved.partition(",")[0] != built.partition(",")[0]:
        with pytest.raises(ModelError, match="does not fit"):
            loaded(model, given.state_dict())
        return
    loaded(model, under("module.", given.state_dict()))
    assert torch.allclose(answers(model), answers(given), atol=1e-6)


def test_one_tensor_with_two_values_is_refused() -> None:
    state = Tied().state_dict()
    state["last.weight"] = torch.zeros(192, 192)
    with pytest.raises(ModelError, match=r"two in the file: first\.weight and last\.weight"):
        loaded(Tied(), state)


def test_codes_of_a_quantised_network_are_no_weights() -> None:
    state = {**OLD, "3.weight": torch.zeros(5, 144, dtype=torch.int8)}
    with pytest.raises(ModelError, match=r"wrong type: 3\.weight int8 for float32"):
        loaded(net(), state)


def test_a_prefix_for_each_part() -> None:
    parts = {("head." if key[0] == "3" else "backbone.") + key: v for key, v in OLD.items()}
    model = net()
    found = loaded(model, {"state_dict": parts})
    assert found.notes == ("w.pt: names are read without the prefixes backbone., head.",)
    assert torch.equal(answers(model), answers(net(1)))
    with pytest.raises(ModelError, match="does not fit"):
        loaded(net(), parts | {"other.3.weight": OLD["3.weight"]})


def test_long_names_and_many_sets_are_a_short_line() -> None:
    for content, wanted in (
        ({"x" * 3000 + str(i): torch.ones(1) for i in range(500)}, None),
        ({"a" * 500 + str(i): OLD for i in range(50)}, None),
        ({"a" * 500 + str(i): OLD for i in range(50)}, "zzz"),
    ):
        with pytest.raises((ModelError, UsageError), match=r"and 4.* more") as caught:
            loaded(net(), content, wanted)
        assert len(str(caught.value)) < 1000


def test_what_holds_no_weights_is_named() -> None:
    adam = torch.optim.Adam(net().parameters()).state_dict()
    assert "the state of an optimizer" in without_weights(adam)
    assert without_weights({"optimizer": adam}) == "a dict without one (optimizer)"
    assert without_weights([1, 2]) == "list without one"


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(192, 192), nn.Linear(192, 192)
        self.last.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.first(x.flatten(1)))
        return out


def test_tied_weights_may_be_saved_once() -> None:
    torch.manual_seed(1)
    saved, model = Tied(), Tied()
    state = {k: v for k, v in saved.state_dict().items() if k != "last.weight"}
    loaded(model, state)
    assert torch.equal(answers(model), answers(saved))
    del state["first.weight"]
    with pytest.raises(ModelError, match=r"missing: first\.weight, last\.weight"):
        loaded(model, state)


class WithState(nn.Linear):
    shift = 0.0

    def get_extra_state(self) -> Any:
        return {"shift": self.shift}

    def set_extra_state(self, state: Any) -> None:
        self.shift = state["shift"]


def test_extra_state_is_loaded() -> None:
    saved, model = nn.Sequential(WithState(3, 2)), nn.Sequential(WithState(3, 2))
    saved[0].shift = 4.0  # type: ignore[assignment]
    loaded(model, {"model": saved.state_dict()})
    assert model[0].shift == 4.0


def test_nothing_is_found_where_there_are_no_tensors() -> None:
    assert find_weights([1, 2]) == []
    assert find_weights({"epoch": 3, "config": {"name": "net"}}) == []


def test_a_file_of_one_tensor_fits_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        loaded(net(), {"loss": torch.tensor(1.0)})
