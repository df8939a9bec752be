"""Checkpoints: what is loaded, what is refused, and that refusing runs nothing."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny
from torch import nn

import flatguard
from flatguard.data import load_dataset
from flatguard.errors import ModelError, UntrustedCodeError, UsageError
from flatguard.targets import make_target, prepare
from flatguard.targets.checkpoint import load

ARCH = f"{Path(__file__).parents[1] / 'support' / 'architectures.py'}:tiny"
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(3)
    return tiny().eval()


def save(model: nn.Module, path: Path, shape: str) -> Path:
    state = model.state_dict()
    wrapped = {f"module.{key}": value for key, value in state.items()}
    if path.suffix == ".safetensors":
        save_file(wrapped if shape == "parallel" else state, path)
        return path
    torch.save(
        {
            "plain": state,
            "parallel": wrapped,
            "nested": {"state_dict": state, "epoch": 7},
            "deep": {"model": {"state_dict": wrapped}},
        }[shape],
        path,
    )
    return path


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("w.safetensors", "plain"),
        ("w.safetensors", "parallel"),
        ("w.pt", "plain"),
        ("w.pth", "parallel"),
        ("w.pt", "nested"),
        ("w.pt", "deep"),
    ],
)
def test_the_weights_arrive(model: nn.Module, tmp_path: Path, name: str, shape: str) -> None:
    target = load(save(model, tmp_path / name, shape), arch=ARCH)
    assert torch.equal(target.model(IMAGES), model(IMAGES))
    assert not target.model.training
    assert target.notes == ()
    assert prepare(target, IMAGES).num_classes == 4


def test_normalisation_goes_inside_the_model(model: nn.Module, tmp_path: Path) -> None:
    path = save(model, tmp_path / "w.safetensors", "plain")
    target = load(path, arch=ARCH, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    std = torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1)
    assert torch.equal(target.model(IMAGES), model((IMAGES - mean) / std))
    head = prepare(target, IMAGES).head
    assert head is not None
    assert head.name == "model.3"


def test_an_architecture_by_module_name(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_models_for_arch.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))\n"
    )
    path = save(model, tmp_path / "w.safetensors", "plain")
    target = load(path, arch="my_models_for_arch:net")  # found in the current folder
    assert torch.equal(target.model(IMAGES), model(IMAGES))


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, bytes]]:
        return Path.write_bytes, (self.file, b"boom")  # type: ignore[return-value]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    victim, file = tmp_path / "victim", tmp_path / "evil.pt"
    if legacy:
        file.write_bytes(pickle.dumps({"state_dict": Bomb(victim)}))
    else:
        torch.save({"state_dict": Bomb(victim)}, file)
    with pytest.raises(UntrustedCodeError, match=r"runs code when it is loaded .*--allow-code"):
        load(file, arch=ARCH)
    assert not victim.exists()


def test_a_whole_pickled_model_needs_allow_code(model: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save(model, file)
    with pytest.raises(UntrustedCodeError, match="--allow-code"):
        load(file)
    target = load(file, allow_code=True)
    assert torch.equal(target.model(IMAGES), model(IMAGES))


def test_torchscript(model: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "script.pt"
    torch.jit.trace(model, IMAGES).save(str(file))
    with pytest.raises(UntrustedCodeError, match=r"is TorchScript.*safetensors"):
        load(file)
    target = prepare(load(file, allow_code=True), IMAGES)
    assert torch.equal(target.model(IMAGES), model(IMAGES))
    assert target.head is None
    assert target.head_reason == "the model has no linear layer that hooks can see"


def test_torch_export(model: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "program.pt2"
    batch = torch.export.Dim("batch", min=1, max=512)
    program = torch.export.export(model, (IMAGES,), dynamic_shapes=({0: batch},))
    torch.export.save(program, file)
    with pytest.raises(UntrustedCodeError, match=r"torch\.export program"):
        load(file)
    target = load(file, allow_code=True)
    assert torch.allclose(target.model(IMAGES), model(IMAGES))
    run = flatguard.evaluate(
        target, "torchattacks:FGSM", data=(IMAGES, torch.zeros(4, dtype=torch.long)), eps="8/255"
    )
    # It has no layers, but the operations of its forward pass can be seen.
    head = run.manifest.target.head
    assert head is not None
    assert head.startswith("linear in ")
    assert run.samples["adv_log_kappa"].notna().all()


def test_the_wrong_architecture_names_keys(model: nn.Module, tmp_path: Path) -> None:
    path = save(model, tmp_path / "w.safetensors", "plain")
    with pytest.raises(ModelError) as caught:
        load(path, arch=ARCH.replace(":tiny", ":resnet20"))
    message = str(caught.value)
    assert "\n" not in message
    assert "missing: conv1.weight" in message
    assert "unexpected: 1.bias, 1.weight" in message


def test_the_wrong_shape_names_both(model: nn.Module, tmp_path: Path) -> None:
    state = model.state_dict()
    state["3.weight"] = torch.zeros(7, 16)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"wrong shape: 3\.weight \(7, 16\) for \(4, 16\)"):
        load(tmp_path / "w.safetensors", arch=ARCH)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file(model: nn.Module, tmp_path: Path, name: str, keep: float) -> None:
    path = save(model, tmp_path / name, "plain")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(ModelError, match="damaged or truncated") as caught:
        load(path, arch=ARCH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        (None, "holds weights only: name their network with --arch"),
        ("tiny", "expected module:factory or file.py:factory"),
        ("no_such_module:net", "importing no_such_module fails: ModuleNotFoundError"),
        ("missing.py:net", "no file missing.py"),
        (ARCH.replace(":tiny", ":huge"), "has no factory huge; it has"),
        (ARCH.replace(":tiny", ":needs_an_argument"), "must take no arguments"),
        (ARCH.replace(":tiny", ":not_a_module"), "expected an nn.Module, got int"),
    ],
)
def test_a_bad_architecture(
    model: nn.Module, tmp_path: Path, arch: str | None, expected: str
) -> None:
    path = save(model, tmp_path / "w.safetensors", "plain")
    with pytest.raises(UsageError) as caught:
        load(path, arch=arch)
    assert expected in str(caught.value)


def test_other_bad_input(model: nn.Module, tmp_path: Path) -> None:
    path = save(model, tmp_path / "w.safetensors", "plain")
    with pytest.raises(UsageError, match="--mean and --std go together"):
        load(path, arch=ARCH, mean=(0.5,))
    with pytest.raises(UsageError, match="expected positive numbers"):
        load(path, arch=ARCH, mean=(0.5,) * 3, std=(1.0, 0.0, 1.0))
    with pytest.raises(ModelError, match="no file"):
        load(tmp_path / "nowhere.pt", arch=ARCH)
    (tmp_path / "list.pt").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="expected a state dict"):
        load(tmp_path / "list.pt", arch=ARCH)


FORCED = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")


@pytest.mark.parametrize("names", [FORCED[:1], FORCED[1:], FORCED])
def test_the_environment_does_not_decide_what_a_pickle_may_run(
    names: tuple[str, ...], model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only `--allow-code` does."""
    torch.save(model, tmp_path / "model.pt")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    for name in names:
        monkeypatch.setenv(name, "1")
    assert load(tmp_path / "model.pt", allow_code=True).name == "model"
    with pytest.raises(UntrustedCodeError):
        load(tmp_path / "model.pt")
    for allow_code in (False, True):
        assert load(tmp_path / "w.pt", arch=ARCH, allow_code=allow_code).name == "w"
    torch.save((torch.rand(3, 3, 8, 8), torch.arange(3)), tmp_path / "data.pt")
    assert len(load_dataset(str(tmp_path / "data.pt"))) == 3
    assert flatguard.load_target("demo").name == "demo"
    assert [os.environ.get(name) for name in names] == ["1"] * len(names)


@pytest.mark.parametrize(
    "name", ["best.pth.tar", "last.ckpt", "pytorch_model.bin", "weights", "model.safetensors.old"]
)
def test_the_content_decides_and_not_the_name(model: nn.Module, tmp_path: Path, name: str) -> None:
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / name)
    target = load(tmp_path / name, arch=ARCH)
    assert torch.equal(target.model(IMAGES), model(IMAGES))
    assert target.source == f"{name} (state_dict) in {ARCH}"
    save_file(model.state_dict(), tmp_path / name)
    assert torch.equal(load(tmp_path / name, arch=ARCH).model(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>quota exceeded</html>", "a page of the web"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"GGUF\x03", "a GGUF file"),
        (b"\x93NUMPY\x01", "an array of NumPy"),
    ],
)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.ckpt"])
def test_what_is_no_checkpoint_is_named(
    content: bytes, what: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"is no checkpoint: it is {what}") as caught:
        load(tmp_path / name, arch=ARCH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch", [1, 4, (3, 4), (2, 1024)])
def test_an_exported_program_of_few_batch_sizes(
    model: nn.Module, tmp_path: Path, batch: int | tuple[int, int]
) -> None:
    file = tmp_path / "program.pt2"
    if isinstance(batch, int):
        program = torch.export.export(model, (IMAGES[:batch],))
    else:
        size = torch.export.Dim("batch", min=batch[0], max=batch[1])
        program = torch.export.export(model, (IMAGES,), dynamic_shapes=({0: size},))
    torch.export.save(program, file)
    target = load(file, allow_code=True)
    for count in (1, 3, 4, 6):
        images = torch.rand(count, 3, 8, 8).requires_grad_(True)
        logits = target.model(images)
        assert torch.allclose(logits, model(images), atol=1e-6)
        (slope,) = torch.autograd.grad(logits.sum(), images)
        (wanted,) = torch.autograd.grad(model(images).sum(), images)
        assert torch.allclose(slope, wanted, atol=1e-6)


def test_weights_key_is_for_weights(model: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save(model, file)
    with pytest.raises(UsageError, match="--weights-key is for a file of weights"):
        load(file, weights_key="ema", allow_code=True)
    torch.save({"a": model.state_dict(), "a_ema": model.state_dict()}, file)
    target = load(file, arch=ARCH, weights_key="a_ema")
    assert target.source == f"model.pt (a_ema) in {ARCH}"


def test_a_lazy_layer_without_weights_is_refused() -> None:
    with pytest.raises(ModelError, match=r"1\.weight belongs to a lazy layer"):
        make_target(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "net", "Python")
