r"""Zero-shot classifiers: a model of images and texts whose classes are texts.

For class $c$, the texts of all templates are embedded, normalised, averaged and normalised again
(Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, 2021,
section 3.1.4): $t_c$. The logits of an image $x$ are $s \, \langle \varphi(x), t_c \rangle + b$,
with $\varphi$ the normalised image features, $s$ the model's scale and $b$ its bias, which only
SigLIP has. The texts do not depend on the image, so they are embedded once: $s\,t_c$ are the rows
of an ordinary linear layer, and κ is measured as for any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flatguard.errors import ModelError
from flatguard.targets.prompts import Prompts

_TOLERANCE = 1e-4
_SIZE = (224, 224)
_AT_ONCE = 64


class ZeroShot(nn.Module):
    """Normalised image features, then a linear layer whose rows are scaled text embeddings.

    Args:
        encoder: the model of images and texts, or what is left of it.
        encode: gives the features `(n, d)` of images by the encoder.
        embeddings: of the classes, normalised, `(classes, d)`.
        scale: the factor s of the cosines.
        bias: the summand b of all logits; 0 where the model has none.
    """

    def __init__(
        self,
        encoder: nn.Module,
        encode: Callable[[Any, Tensor], Tensor],
        embeddings: Tensor,
        scale: float,
        bias: float = 0.0,
    ):
        super().__init__()
        self.encoder, self._encode = encoder, encode
        self.head = nn.Linear(embeddings.shape[1], len(embeddings), bias=bias != 0.0)
        with torch.no_grad():
            self.head.weight.copy_(scale * embeddings)
            if bias != 0.0:
                self.head.bias.fill_(bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(n, classes)` of normalised images."""
        features = functional.normalize(self._encode(self.encoder, images), dim=-1)
        logits: Tensor = self.head(features)
        return logits


def text_embeddings(prompts: Prompts, encode: Callable[[list[str]], Tensor]) -> Tensor:
    """The normalised mean of each class's normalised text embeddings, `(classes, d)`.

    Args:
        prompts: classes and templates.
        encode: the embeddings `(n, d)` of texts.
    """
    texts = [text for number in range(len(prompts.words)) for text in prompts.of_class(number)]
    with torch.no_grad():
        parts = [encode(texts[at : at + _AT_ONCE]) for at in range(0, len(texts), _AT_ONCE)]
        each = functional.normalize(torch.cat(parts).float(), dim=-1)
        means = each.view(len(prompts.words), len(prompts.templates), -1).mean(dim=1)
        return functional.normalize(means, dim=-1)


def test_image(channels: int, size: tuple[int, int] | None) -> Tensor:
    """One image with some structure, as the model takes it after its normalisation."""
    height, width = size or _SIZE
    values = torch.linspace(-1.0, 1.0, channels * height * width)
    return torch.sin(40.0 * values).view(1, channels, height, width)


def check_logits(ours: Tensor, theirs: Tensor, name: str) -> None:
    """Compare with the logits that the model's own forward pass gives for one image.

    Raises:
        ModelError: the model does something else than scale · cos + bias.
    """
    ours, theirs = ours.detach(), theirs.detach()
    size = float(theirs.abs().max().clamp_min(1e-6))
    if ours.shape != theirs.shape or float((ours - theirs).abs().max()) > _TOLERANCE * size:
        raise ModelError(
            f"{name} compares images and texts by another rule than scale · cosine + bias; wrap it "
            "in a model of your own, --arch"
        )


def take_away_unused(model: nn.Module, run: Callable[[], object]) -> None:
    """Take away the parts of a model that a call does not run: those that encode texts.

    A part goes only if neither it nor anything in it runs, and if the call works without it.
    """
    ran: set[str] = set()
    with _watched(model, ran), torch.no_grad():
        run()
    for name, part in list(model.named_children()):
        inside = [name, *(f"{name}.{inner}" for inner, _ in part.named_modules() if inner)]
        if ran.intersection(inside):
            continue
        setattr(model, name, None)
        try:
            with torch.no_grad():
                run()
        except Exception:  # its weights are used without calling it
            setattr(model, name, part)


@contextmanager
def _watched(model: nn.Module, ran: set[str]) -> Iterator[None]:
    """Collects the names of all modules that run."""

    def remember(name: str) -> Callable[..., None]:
        return lambda *_: ran.add(name)

    handles = [
        module.register_forward_hook(remember(name)) for name, module in model.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
