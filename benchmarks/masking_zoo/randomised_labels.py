"""How an example is shown to a model that draws anew at every call.

A reference that looks often and lets every look decide would fell whoever stands near one half by
chance alone. So looks only choose each image's example, and draws that chose nothing decide it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.masking_zoo.attacks import Survivors

LOOK = 20
"""Draws of one look; all of them wrong is no chance: below 1e-6 where P(wrong) is one half."""
DECIDING = 201
"""Fresh draws that decide an image's best example; odd, so that no vote is even."""
LAST = "Square"
"""The attack after which nothing is searched any more."""


class BestOfDraws(Survivors):
    """The samples whose best example fewer than half of fresh draws get wrong.

    The best example is the one that most of 20 draws got wrong. A sample whose example all 20 got
    wrong falls at once. The others are decided after the last attack, each image by 201 draws of
    its own: a draw that the whole batch shares would decide all of them together.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, random: bool):
        super().__init__(model, images, labels, random)
        self.best = images.clone()
        self.wrong = torch.zeros(len(labels))

    def show(self, rows: Tensor, examples: Tensor, attack: str) -> Tensor:
        """Remember what is better than before; after the last attack, decide whoever is left."""
        counts = self._counts(rows, examples)
        better = counts > self.wrong[rows]
        self.best[rows[better]] = examples[better]
        self.wrong[rows[better]] = counts[better]
        fell = counts == LOOK
        if attack == LAST:
            fell |= self.decided(rows)
        gone = rows[fell]
        self.rows = self.rows[~torch.isin(self.rows, gone)]
        if len(gone):
            self.fell_to[attack] = self.fell_to.get(attack, 0) + len(gone)
        return fell

    def decided(self, rows: Tensor) -> Tensor:
        """Whether most of an image's own fresh draws get its best example wrong."""
        with torch.no_grad():
            wrong = [
                sum(
                    int(self.model(self.best[row : row + 1]).argmax() != self.labels[row])
                    for _ in range(DECIDING)
                )
                for row in rows.tolist()
            ]
        return torch.tensor(wrong) > DECIDING / 2

    def _counts(self, rows: Tensor, examples: Tensor) -> Tensor:
        wrong = torch.zeros(len(rows))
        with torch.no_grad():
            for _ in range(LOOK):
                wrong += (self.model(examples).argmax(dim=1) != self.labels[rows]).float()
        return wrong
