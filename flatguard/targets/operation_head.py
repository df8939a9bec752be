r"""A head that is no layer: the operations of a forward pass whose results make up the logits.

With the results $o_i = W_i \varphi_i$ of the last linear operations, the logits are
$z = \sum_i a_i W_i \varphi_i + b + c$ with fixed $a_i$ and $b$, and a shift $c$ that is equal
across classes. So the head is one linear map: φ concatenates the features, and W the weights
$a_i W_i$. Operations that share their weights share their columns: φ is their weighted mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flatguard.geometry.sharpness import log_weight_norm_squared
from flatguard.targets.head import HeadListener
from flatguard.targets.linear_operations import Product, Reading
from flatguard.targets.operation_watch import Place, Watch


@dataclass(frozen=True)
class Division:
    """What a model divides an operation's result by afterwards, as a cosine classifier may.

    Attributes:
        by_features: ‖φ‖ of each sample, so that φ / ‖φ‖ are the features.
        by_weights: ‖w‖ of each class, `(k,)`; None where it does not.
    """

    by_features: bool = False
    by_weights: Tensor | None = None

    def of(self, features: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
        """Features `(n, d)` and result `(n, k)` after the division."""
        if self.by_features:
            norm = features.norm(dim=1, keepdim=True)
            features, result = features / norm, result / norm
        if self.by_weights is not None:
            result = result / self.by_weights
        return features, result


UNDIVIDED = Division()


@dataclass(frozen=True)
class Part:
    """One operation of the head.

    Attributes:
        place: where it runs.
        reading: which of its operands holds the features.
        factor: a_i, its share of the logits.
        block: the number of its block of columns in W; operations with one W share a block.
        share: the factor of its features in that block.
        division: of its result.
    """

    place: Place
    reading: Reading
    factor: float
    block: int = 0
    share: float = 1.0
    division: Division = UNDIVIDED


@dataclass(frozen=True)
class OperationHead:
    """The final linear map, computed by operations; proven on real images.

    Attributes:
        name: the operations, and the modules that run them.
        model: the model that runs them.
        parts: the operations, in the order in which they ran.
        children: the modules that the owners call themselves.
        weight: W, `(k, d)`, with the factors a_i inside.
        offset: b, `(k,)`.
        further: what is added to the operations' own results, which may have a bias, `(k,)`.
        tolerance: the largest `relative_mismatch` in a call that it explains.
    """

    name: str
    model: nn.Module
    parts: tuple[Part, ...]
    children: frozenset[str]
    weight: Tensor
    offset: Tensor
    further: Tensor
    tolerance: float

    @property
    def scale(self) -> float:
        """1: every factor is inside W."""
        return 1.0

    def log_weight_norm_squared(self) -> float:
        r"""$\log \|W\|_F^2$ of the weights as they were when the head was proven.

        In six decimals: the model computes W, and machines differ in its last digits.
        """
        return round(log_weight_norm_squared(self.weight), 6)

    @contextmanager
    def watched(self, listener: HeadListener) -> Iterator[None]:
        """Call the listener at the end of each forward pass in which every operation ran once."""
        collector = _Collector(self, listener)
        watch = Watch(
            self.model,
            {part.place.owner for part in self.parts},
            collector.saw,
            places={part.place for part in self.parts},
            children=self.children,
            at_start=collector.seen.clear,
            at_end=collector.finished,
        )
        with watch.active():
            yield


class _Collector:
    """Gathers the operands of one forward pass."""

    def __init__(self, head: OperationHead, listener: HeadListener):
        self.head, self.listener = head, listener
        self.parts = {part.place: part for part in head.parts}
        self.seen: dict[Place, tuple[Tensor, Tensor]] = {}

    def saw(self, place: Place, function: object, product: Product) -> None:
        part = self.parts[place]
        try:
            # Copies: the model may write into its tensors afterwards.
            features, result = (
                part.reading.features(product).clone(),
                part.reading.output(product).clone(),
            )
        except (RuntimeError, ValueError, IndexError):
            return  # tensors of another shape than those of the proof
        self.seen[place] = part.division.of(features, result)

    def finished(self) -> None:
        if len(self.seen) != len(self.parts):
            return
        rows = {len(features) for features, _ in self.seen.values()}
        if len(rows) == 1:
            features, output = self._joined()
            self.listener(features, output)
        self.seen.clear()

    def _joined(self) -> tuple[Tensor, Tensor]:
        blocks: dict[int, Tensor] = {}
        output = self.head.further
        for part in self.head.parts:
            features, result = self.seen[part.place]
            share = features if part.share == 1.0 else features * part.share
            blocks[part.block] = blocks[part.block] + share if part.block in blocks else share
            output = output + result * part.factor
        if len(blocks) == 1:
            return blocks[0], output
        return torch.cat([blocks[number] for number in sorted(blocks)], dim=1), output
