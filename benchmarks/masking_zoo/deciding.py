"""How an example is shown to a model with a memory, or to one that looks at the whole batch."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from benchmarks.masking_zoo.attacks import Survivors


class Fresh(nn.Module):
    """A copy in the initial state answers each call; nothing is remembered."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a model that was never asked before."""
        logits: Tensor = copy.deepcopy(self.model)(x)
        return logits


class InInitialState(Survivors):
    """The samples that no example fools while the model is in its initial state."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, random: bool):
        super().__init__(Fresh(model), images, labels, random)


class AloneInCleanBatch(Survivors):
    """The samples that no example fools where all other images of the batch are clean."""

    def _mostly_wrong(self, rows: Tensor, examples: Tensor, draws: int) -> Tensor:
        wrong = torch.zeros(len(rows), dtype=torch.bool)
        with torch.no_grad():
            for number, row in enumerate(rows.tolist()):
                batch = self.images.clone()
                batch[row] = examples[number]
                wrong[number] = self.model(batch)[row].argmax() != self.labels[row]
        return wrong
