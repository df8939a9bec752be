"""timm: and torchvision: names, without a network."""

import pytest

import flatguard
from flatguard.errors import EnvironmentProblem, ModelError, UsageError


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_no_weights_and_no_network(
    name: str, tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # an empty cache
    with pytest.raises(EnvironmentProblem, match=r"in the cache, and FLATGUARD_OFFLINE") as caught:
        flatguard.load_target(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["timm:resnet81", "torchvision:resnet19"])
def test_an_unknown_name_lists_the_nearest(name: str) -> None:
    with pytest.raises(ModelError, match=r"nearest: .*resnet18|nearest: .*resnet"):
        flatguard.load_target(name)


def test_a_file_option_for_a_name() -> None:
    with pytest.raises(UsageError, match="belong to a checkpoint file"):
        flatguard.load_target("demo", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
