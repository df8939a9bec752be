"""What every check gathers its evidence with: the target, the audited samples, and the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from flatguard.checks.evidence import ProbeEvidence
from flatguard.environment.randomness import seeded
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.progress import ProgressReporter
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import within
from flatguard.request import NO_LIMITS, derive_seed
from flatguard.runs.check_evidence import load_probes, load_tables
from flatguard.runs.facts import BlockPlan
from flatguard.runs.run import Run
from flatguard.targets.initial import FreshEachCall

if TYPE_CHECKING:
    from flatguard.execution.context import EvaluationContext
    from flatguard.targets import Target

T = TypeVar("T")

VERIFY_DRAWS, CONFIRM_DRAWS = 9, 21
"""A randomised target is fooled where most of this many fresh passes are wrong. A search sees many
images and could keep one that was wrong by chance, so its result is confirmed by further passes."""

_NEARLY_ALL = 0.85
"""Of `VERIFY_DRAWS`: 8 of 9."""

EOT_DRAWS = 8
"""Gradients of a randomised target are averaged over this many draws."""

TARGET_GAP = 2.0
"""Logits divided by a sample's temperature have this gap between its class and the next."""


@dataclass(frozen=True)
class Rows:
    """Some samples of one block, on the device.

    Attributes:
        sample: `(n,)` int64, their numbers in the data set.
        images: `(n, ...)`, clean.
        labels: `(n,)` int64.
        temperature: `(n,)`, the measured gap of the clean logits over `TARGET_GAP`.
        adversarial: `(n, ...)`, what the audited attack returned.
    """

    sample: Tensor
    images: Tensor
    labels: Tensor
    temperature: Tensor
    adversarial: Tensor

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, index: Tensor | slice) -> Rows:
        return Rows(
            self.sample[index], self.images[index], self.labels[index],
            self.temperature[index], self.adversarial[index],
        )  # fmt: skip

    def to(self, device: torch.device) -> Rows:
        """The same rows on a device."""
        return Rows(
            self.sample.to(device), self.images.to(device), self.labels.to(device),
            self.temperature.to(device), self.adversarial.to(device),
        )  # fmt: skip


@dataclass
class Meter:
    """Counts the rows that go forward through the target, its twins and its surrogates.

    Attributes:
        forwards: the count.
        shared: of it, what is done once for a whole probe, by what it is.
        compute_budget: the budget that they are spent from.
        called: receives each number of rows; it may raise to interrupt.
    """

    forwards: int = 0
    shared: dict[str, int] = field(default_factory=dict)
    called: Callable[[int], None] | None = None
    compute_budget: ComputeBudget = field(default_factory=lambda: ComputeBudget(NO_LIMITS))

    def add(self, rows: int) -> None:
        """Count rows that go forward now.

        Raises:
            BudgetSpent: the run may not spend that much.
        """
        self.compute_budget.spend(rows)
        self.forwards += rows
        if self.called is not None:
            self.called(rows)


@dataclass(frozen=True)
class Draw:
    """Some survivors, drawn at random, that a level's probes look at before all others.

    Attributes:
        name: of the draw.
        samples: their numbers, in rising order.
        first: the name of the first draw, whose evidence the others read.
    """

    name: str
    samples: np.ndarray
    first: str

    def name_of(self, probe: str) -> str:
        """The name that a probe's evidence of this draw is stored under."""
        return f"{probe}-{self.name}"


@dataclass(frozen=True)
class _Once:
    """What all parts of a probe need, and the forward passes that it took."""

    value: Any
    forwards: int


class CheckContext:
    """A finished run with its target loaded again.

    Args:
        evaluation: the resolved request, with everything loaded.
        run: the run that is audited.
        progress: receives progress updates.
        compute_budget: what may be spent; None is no limit.
        surrogates: other models whose adversarial examples are shown to the target.

    Attributes:
        randomised: whether the target gives other logits for the same image.
        shares_draws: whether all images of a batch meet the same draw.
        decides_alone: whether an example counts where it is alone in the clean batch of its block.
        worth_attacking: samples beside the survivors that may have been wrong by luck.
        remembers: whether the target's answers depend on earlier calls.
        is_fresh: whether each call is answered by a new copy of the initial state.
        handed: evidence of other probes that is known already, by name.
        draw: the survivors that are looked at for now; None is all.
        batch_limit: the most samples that go forward together; smaller where memory ran out.
    """

    def __init__(
        self,
        evaluation: EvaluationContext,
        run: Run,
        progress: ProgressReporter,
        compute_budget: ComputeBudget | None = None,
        surrogates: Sequence[Target] = (),
    ):
        self.evaluation, self.run, self.progress = evaluation, run, progress
        self.surrogates = surrogates
        self.target = evaluation.target
        self.model: nn.Module = evaluation.target.model
        self.device = evaluation.device
        self.budget: Budget = evaluation.attack.budget
        self.samples = run.samples.set_index("sample", drop=False)
        self.meter = Meter(compute_budget=compute_budget or ComputeBudget(NO_LIMITS))
        self.randomised = self.shares_draws = False
        self.remembers = self.is_fresh = self.decides_alone = False
        self.worth_attacking: set[int] = set()
        self.handed: dict[str, ProbeEvidence] = {}
        self.draw: Draw | None = None
        self._once: dict[str, _Once] = {}
        self.batch_limit = max(plan.stop - plan.start for plan in run.manifest.blocks)
        correct = self.samples["clean_correct"]
        margins = self.samples.loc[correct, "clean_margin"].astype("float64")
        self._least_gap = max(float(margins.median()) * 0.01, 1e-30) if len(margins) else 1.0

    @property
    def eps(self) -> float:
        """The radius. Searches do not run where there is none."""
        return self.budget.radius

    def forget_between_calls(self) -> None:
        """From now on, call new copies of the model's initial state, where it can be copied."""
        self.remembers = True
        if self.evaluation.initial is not None and not self.is_fresh:
            self.model, self.is_fresh = FreshEachCall(self.evaluation.initial), True

    @property
    def draws(self) -> int:
        """Forward passes that gradients and mean margins are averaged over."""
        return EOT_DRAWS if self.randomised else 1

    @property
    def survivors(self) -> np.ndarray:
        """The numbers of the samples that survived the attack, or that it fooled by luck.

        All of them, or those of the draw.
        """
        if self.draw is not None:
            return self.draw.samples
        chosen = self.samples["robust"] | self.samples["sample"].isin(self.worth_attacking)
        numbers: np.ndarray = self.samples.loc[chosen, "sample"].to_numpy()
        return numbers

    @property
    def clean_correct(self) -> np.ndarray:
        """The numbers of the samples whose clean image is classified correctly."""
        return self._numbers("clean_correct")

    def _numbers(self, column: str) -> np.ndarray:
        numbers: np.ndarray = self.samples.loc[self.samples[column], "sample"].to_numpy()
        return numbers

    def stored(self, probe: str) -> ProbeEvidence:
        """The evidence that another probe of this run has stored; empty if it did not run."""
        if probe in self.handed:
            return self.handed[probe]
        probe = probe if self.draw is None else f"{probe}-{self.draw.first}"
        facts = load_probes(self.run).get(probe)
        if facts is None:
            return ProbeEvidence({})
        return ProbeEvidence(facts.facts, load_tables(self.run, facts))

    def seed(self, part: str, block: int = 0) -> int:
        """The seed of one part of the checks, derived from the run's."""
        return derive_seed(self.evaluation.request.seed, block, f"probe {part}")

    @contextmanager
    def seeded(self, part: str) -> Iterator[None]:
        """Run one part with its own seed. All generators are restored."""
        with seeded(self.seed(part), self.device):
            yield

    def once(self, key: str, find: Callable[[], T]) -> T:
        """What all parts of a probe need: it is found by the first part that a process gathers.

        Its cost counts once for the whole probe, in `Meter.shared`.
        """
        key = f"{key}, {self.batch_limit} at once"
        key = key if self.draw is None else self.draw.name_of(key)
        if key not in self._once:
            before = self.meter.forwards
            with self.seeded(key):
                value = find()
            self._once[key] = _Once(value, self.meter.forwards - before)
            self.meter.forwards = before
        kept = self._once[key]
        self.meter.shared[key] = kept.forwards
        found: T = kept.value
        return found

    def batches(self, numbers: np.ndarray) -> list[np.ndarray]:
        """The numbers of these samples, as `rows` yields them."""
        most = self.batch_limit
        return [
            here[begin : begin + most]
            for _, here in self._by_block(numbers)
            for begin in range(0, len(here), most)
        ]

    def _by_block(self, numbers: np.ndarray) -> Iterator[tuple[BlockPlan, np.ndarray]]:
        wanted = np.sort(np.asarray(numbers))
        for plan in self.run.manifest.blocks:
            here = wanted[(wanted >= plan.start) & (wanted < plan.stop)]
            if len(here):
                yield plan, here

    def rows(self, numbers: np.ndarray) -> Iterator[Rows]:
        """These samples, in batches of at most `batch_limit` of one block."""
        for plan, here in self._by_block(numbers):
            batch = self.evaluation.dataset.block(plan.start, plan.stop)
            index = torch.from_numpy(here - plan.start)
            table = self.samples.loc[here]
            gap = table["clean_margin"].to_numpy().astype("float64").clip(min=self._least_gap)
            rows = Rows(
                torch.from_numpy(here),
                batch.images[index],
                batch.labels[index],
                torch.from_numpy(gap / TARGET_GAP),
                self.run.adversarial(plan.index)[index],
            )
            for begin in range(0, len(rows), self.batch_limit):
                yield rows[begin : begin + self.batch_limit].to(self.device)

    def logits(self, images: Tensor, model: nn.Module | None = None) -> Tensor:
        """One counted forward pass, without gradient; no pass for no images.

        Args:
            images: `(n, ...)`.
            model: in place of the target.
        """
        if not len(images):
            return torch.zeros(0, self.evaluation.num_classes, device=images.device)
        self.meter.add(len(images))
        with torch.no_grad():
            logits: Tensor = (model or self.model)(images)
        return logits

    def confirmed(self, images: Tensor, rows: Rows, fooled: Tensor) -> Tensor:
        """The share of wrong decisions, `(n,)`: measured anew for a randomised target, else 1 or 0.

        Only what is `fooled` may have a share where the target is not randomised.
        """
        if self.randomised:
            admissible = within(images, rows.images, self.budget)
            return self.share_wrong(images, rows.labels, CONFIRM_DRAWS) * admissible
        share = fooled.double()
        if not bool(fooled.any()):
            return share
        if self.decides_alone:
            share[fooled] = self.wrong_alone(images[fooled], rows[fooled]).double()
        return share

    def wrong_alone(self, images: Tensor, rows: Rows) -> Tensor:
        """Which images are wrong alone in the clean batch of their block, `(n,)`.

        Cost: a forward pass of the whole block for each image.
        """
        found = []
        for image, number, label in zip(images, rows.sample.tolist(), rows.labels, strict=True):
            batch, place = self.clean_batch(number)
            shown = batch.clone()
            shown[place] = image
            logits = self.logits(shown)[place]
            found.append((logits.argmax() != label) & logits.isfinite().all())
        return torch.stack(found) if found else torch.zeros(0, dtype=torch.bool)

    def clean_batch(self, number: int) -> tuple[Tensor, int]:
        """The clean images of a sample's block, on the device, and its place among them."""
        plan = next(p for p in self.run.manifest.blocks if p.start <= number < p.stop)
        batch = self.evaluation.dataset.block(plan.start, plan.stop)
        return batch.images.to(self.device), number - plan.start

    def share_wrong(self, images: Tensor, labels: Tensor, draws: int = VERIFY_DRAWS) -> Tensor:
        """The share of fresh forward passes that classify each image wrong, `(n,)`.

        A pass with a NaN or infinite logit does not count as wrong. Where a batch shares its draw,
        what is confirmed is shown one image at a time: otherwise all samples err together.
        """
        shares = []
        alone = self.shares_draws and draws > VERIFY_DRAWS and len(images) > 1
        for _ in range(draws if self.randomised else 1):
            parts = images.split(1) if alone else (images,)
            logits = torch.cat([self.logits(part) for part in parts])
            shares.append((logits.argmax(dim=1) != labels) & logits.isfinite().all(dim=1))
        return torch.stack(shares).double().mean(dim=0)

    def fools(self, images: Tensor, rows: Rows, eps: float | None = None) -> Tensor:
        """Which images are admissible and wrong; in nearly all fresh passes of a randomised target.

        A search that ended where a few passes happen to be wrong would stop at the boundary.
        """
        budget = self.budget if eps is None else Budget(self.budget.norm, eps)
        admissible = within(images, rows.images, budget)
        least = _NEARLY_ALL if self.randomised else 0.5
        return admissible & (self.share_wrong(images, rows.labels) > least)


def evenly(numbers: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of these numbers, evenly spread over all of them."""
    if len(numbers) <= count:
        return numbers
    chosen: np.ndarray = numbers[np.linspace(0, len(numbers) - 1, count).round().astype(int)]
    return chosen
