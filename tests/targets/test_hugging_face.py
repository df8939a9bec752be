"""transformers' models by name: their own logits, their own preprocessing, and what is refused."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import published

import flatguard
from flatguard.errors import (
    EnvironmentProblem,
    FlatguardError,
    ModelError,
    UntrustedCodeError,
    UsageError,
)
from flatguard.execution.context import load_model_and_data
from flatguard.request import make_request
from flatguard.targets import load_target, prepare

transformers = pytest.importorskip(
    "transformers", reason="no transformers: pip install 'flatguard[transformers]'"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with tiny models."""
    root = tmp_path_factory.mktemp("models")
    for make in (published.vit, published.convnext, published.clip, published.siglip):
        make(root / make.__name__)
    published.names(root)
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    generator = np.random.default_rng(0)
    for number, name in enumerate(("bird", "cat", "cat", "dog", "ship", "truck")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        coarse.resize((57 + number, 44)).save(folder / name / f"{number}.png")
    return folder


def images_of(folder: Path) -> list[Image.Image]:
    return [Image.open(file) for file in sorted(folder.glob("*/*.png"))]


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_a_classifier_gives_what_transformers_gives(
    kind: str, models: Path, pictures: Path
) -> None:
    target = load_target(f"hf:{models / kind}")
    processor = transformers.AutoImageProcessor.from_pretrained(models / kind)
    model = transformers.AutoModelForImageClassification.from_pretrained(models / kind).eval()
    loaded = load_model_and_data(
        make_request(model="", attack="", dataset=str(pictures)), torch.device("cpu"), target
    )
    assert loaded.request.preprocessing == target.defaults.preprocessing
    ours = loaded.dataset.block(0, 6).images
    assert ours.shape == (6, 3, published.SIDE, published.SIDE)
    with torch.no_grad():
        theirs = model(**processor(images_of(pictures), return_tensors="pt")).logits
        assert torch.allclose(target.model(ours), theirs, atol=2e-3)  # pixels are rounded
    assert loaded.target.head is not None


def test_pictures_from_python_are_preprocessed_and_tensors_are_not(
    models: Path, pictures: Path
) -> None:
    target, cpu = load_target(f"hf:{models / 'vit'}"), torch.device("cpu")
    request = make_request(model="", attack="", n_examples=6)
    by_folder = load_model_and_data(
        request.with_(dataset=str(pictures)), cpu, target
    ).dataset.block(0, 6)
    given = flatguard.data.given.given_dataset((images_of(pictures), [0] * 6), "pictures")
    by_hand = load_model_and_data(request, cpu, target, given)
    assert torch.equal(by_hand.dataset.block(0, 6).images, by_folder.images)
    assert by_hand.request.preprocessing == target.defaults.preprocessing
    small = flatguard.data.given.given_dataset((torch.rand(6, 3, 16, 16), [0] * 6), "tensors")
    with pytest.raises(ModelError, match=r"images of 32 x 32 pixels.*got 16 x 16") as error:
        load_model_and_data(request, cpu, target, small)
    assert "\n" not in str(error.value)


def test_another_size_that_the_model_takes_is_noted(models: Path) -> None:
    target = load_target(f"hf:{models / 'convnext'}")
    notes = prepare(target, torch.rand(2, 3, 48, 40)).notes
    assert "images of 48 x 40 pixels are given to a model that was made for 32 x 32" in notes


def test_labels_follow_from_the_names_in_the_config(tmp_path: Path, pictures: Path) -> None:
    order = ["truck", "ship", "dog", "cat", "bird"]
    published.vit(tmp_path, id2label=dict(enumerate(order)), label2id={})
    request = make_request(model=f"hf:{tmp_path}", attack="", dataset=str(pictures))
    dataset = load_model_and_data(request).dataset
    assert dataset.block(0, 6).labels.tolist() == [4, 3, 3, 2, 1, 0]
    assert "by the model's own names" in dataset.notes[0]


def zero_shot(models: Path, kind: str, *templates: str) -> Any:
    file = models / "templates.txt"
    file.write_text("\n".join(templates))
    return load_target(
        f"hf:{models / kind}", classes=models / "classes.txt",
        templates=file if templates else None,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_zero_shot_model_gives_what_transformers_gives(kind: str, models: Path) -> None:
    target = zero_shot(models, kind, "an image of {}")
    texts = [f"an image of {name}" for name in ("cat", "dog", "ship", "truck", "bird")]
    words = transformers.AutoTokenizer.from_pretrained(models / kind)
    longest = {"clip": 77, "siglip": 64}[kind]
    tokens = words(texts, padding="max_length", max_length=longest, return_tensors="pt")
    processor = transformers.AutoImageProcessor.from_pretrained(models / kind)
    model = transformers.AutoModel.from_pretrained(models / kind).eval()
    images = torch.rand(3, 3, published.SIDE, published.SIDE)
    mean, std = (torch.tensor(n).view(3, 1, 1) for n in (processor.image_mean, processor.image_std))
    with torch.no_grad():
        theirs = model(pixel_values=(images - mean) / std, **tokens).logits_per_image
        assert torch.allclose(target.model(images), theirs, rtol=1e-4, atol=1e-4)
    ready = prepare(target, images)
    assert ready.head is not None
    assert ready.head.name.endswith("head")
    assert ready.prompts.words == ("cat", "dog", "ship", "truck", "bird")
    assert not any("text_model" in name for name, _ in target.model.named_parameters())


def test_templates_are_averaged_on_the_sphere(models: Path) -> None:
    normal = torch.nn.functional.normalize
    one, two, both = (
        zero_shot(models, "clip", *templates).model.model.head.weight.detach()
        for templates in (["a {}"], ["the {}."], ["a {}", "the {}."])
    )
    assert torch.allclose(normal(both), normal(normal(one) + normal(two)), atol=1e-5)
    assert torch.allclose(both.norm(dim=1), one.norm(dim=1))


def test_an_evaluation_keeps_its_prompts_and_resumes(models: Path, tmp_path: Path) -> None:
    (models / "templates.txt").write_text("a {}\nthe {}.")
    images = torch.rand(4, 3, published.SIDE, published.SIDE)
    with torch.no_grad():
        labels = zero_shot(models, "clip", "a {}", "the {}.").model(images).argmax(dim=1)
    run = flatguard.evaluate(
        f"hf:{models / 'clip'}", "torchattacks:FGSM", data=(images, labels), eps="1/255",
        classes=models / "classes.txt", templates=models / "templates.txt", checks="none",
        out=str(tmp_path / "run"),
    )  # fmt: skip
    facts = run.manifest.target
    assert facts.templates == ("a {}", "the {}.")
    assert facts.class_texts == ("cat", "dog", "ship", "truck", "bird")
    assert run.manifest.data.classes == facts.class_texts
    assert run.summary["clean_accuracy"] == 1.0
    assert run.samples["clean_log_kappa"].notna().all()
    again = flatguard.resume(str(tmp_path / "run"), data=(images, labels))
    assert again.manifest == run.manifest


def _headless(folder: Path) -> str:
    published.vit(folder).vit.save_pretrained(folder)
    return "no weights for classifier"


def _several_labels(folder: Path) -> str:
    published.vit(folder, problem_type="multi_label_classification")
    return "several labels"


def _without_processor(folder: Path) -> str:
    published.vit(folder)
    (folder / "preprocessor_config.json").unlink()
    return "its image processor is needed"


def _odd_processor(folder: Path) -> str:
    published.vit(folder)
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"image_processor_type": "DonutImageProcessor"}))
    return "DonutImageProcessor has do_pad"


def _language_model(folder: Path) -> str:
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(folder)
    return "is bert: expected an image classifier"


def _no_config(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    return "cannot be loaded"


def _truncated(folder: Path) -> str:
    published.vit(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    return "cannot be loaded"


@pytest.mark.parametrize(
    "spoil",
    [_headless, _several_labels, _without_processor, _odd_processor, _language_model, _no_config,
     _truncated],
)  # fmt: skip
def test_what_is_refused(spoil: Any, tmp_path: Path) -> None:
    expected = spoil(tmp_path)
    with pytest.raises(ModelError, match=expected) as caught:
        load_target(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_code_of_a_repository_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.C"}, "architectures": ["Own"]}
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(UntrustedCodeError, match="code of its own repository") as caught:
        load_target(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert not marker.exists()


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("never"),))


def test_code_in_a_pickle_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published.vit(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with (tmp_path / "pytorch_model.bin").open("wb") as stream:
        pickle.dump({"weight": _Evil()}, stream)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UntrustedCodeError):
        load_target(f"hf:{tmp_path}")
    assert not Path("never").exists()


def test_a_pickle_of_weights_is_read(tmp_path: Path) -> None:
    model = published.vit(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    images = torch.rand(2, 3, published.SIDE, published.SIDE)
    with torch.no_grad():
        theirs = model(images * 2 - 1).logits
        assert torch.allclose(load_target(f"hf:{tmp_path}").model(images), theirs, atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_zero_shot_model_without_classes(kind: str, models: Path) -> None:
    with pytest.raises(UsageError, match="--classes FILE"):
        load_target(f"hf:{models / kind}")


def test_templates_for_a_classifier(models: Path) -> None:
    with pytest.raises(UsageError, match="--templates belongs to a zero-shot model"):
        load_target(f"hf:{models / 'vit'}", templates=models / "classes.txt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("hf:google/no-such-model", "in the cache, and FLATGUARD_OFFLINE"),
     ("hf:./no-such-folder", "no folder"), ("hf:no/such/folder", "no folder")],
)  # fmt: skip
def test_nothing_there(name: str, expected: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(FlatguardError, match=expected) as caught:
        load_target(name)
    assert isinstance(caught.value, EnvironmentProblem | ModelError)
    assert "\n" not in str(caught.value)
