"""The parts of a zero-shot classifier that no library is needed for."""

import pytest
import torch
from torch import Tensor, nn

from flatguard.errors import ModelError
from flatguard.targets.prompts import Prompts
from flatguard.targets.zero_shot import ZeroShot, check_logits, take_away_unused, text_embeddings

normal = torch.nn.functional.normalize


class Both(nn.Module):
    """Two encoders; the image's uses a weight of `shared` without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text, self.shared = nn.Linear(12, 4), nn.Linear(3, 4), nn.Linear(4, 4)
        self.idle = nn.Sequential(nn.Linear(4, 4))

    def see(self, images: Tensor) -> Tensor:
        return self.image(images.flatten(1)) @ self.shared.weight


def test_embeddings_are_normalised_averaged_and_normalised() -> None:
    prompts = Prompts(("a", "b"), ("a", "b"), ("{}x", "yy{}"))
    seen = {"ax": [3.0, 0.0], "yya": [0.0, 1.0], "bx": [5.0, 0.0], "yyb": [1.0, 0.0]}
    embeddings = text_embeddings(prompts, lambda texts: torch.tensor([seen[t] for t in texts]))
    assert torch.allclose(embeddings, torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))


def test_logits_are_scale_cosine_and_bias() -> None:
    model, images = Both(), torch.rand(5, 3, 2, 2)
    texts = normal(torch.randn(3, 4), dim=1)
    logits = ZeroShot(model, Both.see, texts, 7.0, -2.0)(images)
    assert torch.allclose(logits, 7.0 * normal(model.see(images), dim=1) @ texts.T - 2.0, atol=1e-5)
    check_logits(logits, logits.clone(), "model")
    with pytest.raises(ModelError, match="another rule"):
        check_logits(logits, logits + 0.1, "model")


def test_only_what_an_image_does_not_need_is_taken_away() -> None:
    model, images = Both(), torch.rand(5, 3, 2, 2)
    before = model.see(images)
    take_away_unused(model, lambda: model.see(images))
    assert torch.equal(model.see(images), before)
    assert model.text is None
    assert model.idle is None
    assert model.shared is not None
