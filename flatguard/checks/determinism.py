"""Determinism: does the target give the same logits for the same image?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from flatguard.checks.advised_attack import averaged
from flatguard.checks.check import Check, InParts, Probe, every_level
from flatguard.checks.context import CONFIRM_DRAWS, CheckContext, Rows, evenly
from flatguard.checks.evidence import CONFIRMED, Evidence, ProbeEvidence
from flatguard.checks.finding import Finding, not_run
from flatguard.checks.missing_evidence import how_to_run
from flatguard.checks.preflight.facts import facts_of
from flatguard.checks.resubmission import in_words, resubmissions
from flatguard.checks.search import surest as search
from flatguard.checks.search.attempts import AttemptTable, Shown, best_examples
from flatguard.checks.statistics import interval

NAME = "determinism"
_SOURCE = "Athalye et al. 2018 (expectation over transformation)"

_SAMPLES = 32
_COPIES = 8
_SUREST = "surest"
_RELATIVE_TOLERANCE = 1e-4
"""Parallel sums differ by 1e-6 from call to call on a GPU; a random layer by far more."""


def _gather(context: CheckContext, calls: int) -> ProbeEvidence:
    """Call the target again on the same images; if it is randomised, measure survival again.

    A randomised target classifies each clean image and each audited example `CONFIRM_DRAWS` times.
    A sample survives if most draws classify both correctly, whatever a single one did.

    Cost: `calls` forward passes over at most `_SAMPLES` images; 2 · `CONFIRM_DRAWS` over all
    samples where the target is randomised.
    """
    numbers = context.samples.loc[~context.samples["failed"], "sample"].to_numpy()
    frames = []
    with context.seeded("determinism"):
        for rows in context.rows(evenly(numbers, _SAMPLES)):
            logits = torch.stack([context.logits(rows.images) for _ in range(calls)])
            spread = (logits - logits[0]).abs().amax(dim=(0, 2))
            size = (logits[0] - logits[0].mean(dim=1, keepdim=True)).abs().amax(dim=1)
            flips = (logits.argmax(dim=2) != logits[0].argmax(dim=1)).any(dim=0)
            columns = {
                "sample": rows.sample.cpu().numpy(),
                "difference": (spread / size.clamp_min(1e-30)).double().cpu().numpy(),
                "flips": flips.cpu().numpy(),
            }
            frames.append(pd.DataFrame(columns))
    repeated = pd.concat(frames, ignore_index=True)
    context.randomised = bool((repeated["difference"] > _RELATIVE_TOLERANCE).any())
    tables = {"repeated": repeated}
    context.shares_draws = context.randomised and _shares_draws(context)
    if context.randomised:
        tables["survival"] = _survival(context)
    facts = {
        "randomised": context.randomised,
        "shares_draws": context.shares_draws,
        "draws": CONFIRM_DRAWS,
    }
    return ProbeEvidence(facts, tables)


def _shares_draws(context: CheckContext) -> bool:
    """Whether copies of one image in one batch get the same logits, and other ones in the next.

    A model may draw once for a whole batch: a size, a member, a rotation.
    """
    numbers = context.samples.loc[~context.samples["failed"], "sample"].to_numpy()
    for rows in context.rows(numbers[:1]):
        copies = rows.images.expand(_COPIES, *rows.images.shape[1:]).contiguous()
        with context.seeded("shared draws"):
            calls = torch.stack([context.logits(copies) for _ in range(_COPIES)])
        size = calls.abs().amax() * _RELATIVE_TOLERANCE
        within = (calls - calls[:, :1]).abs().amax()
        return bool(within <= size) and bool((calls - calls[:1]).abs().amax() > size)
    return False


def _survival(context: CheckContext) -> pd.DataFrame:
    """How often fresh draws are wrong about each clean image and its audited example.

    `wrong` is the larger of both shares: the clean image, too, is within the budget.
    """
    frames = [pd.DataFrame({"sample": [], "wrong": [], "clean": []})]
    numbers = context.samples.loc[~context.samples["failed"], "sample"].to_numpy()
    with context.seeded("survival"):
        for rows in context.rows(numbers):
            clean = context.share_wrong(rows.images, rows.labels, CONFIRM_DRAWS)
            after = context.share_wrong(rows.adversarial, rows.labels, CONFIRM_DRAWS)
            columns = {
                "sample": rows.sample.cpu().numpy(),
                "wrong": clean.maximum(after).cpu().numpy(),
                "clean": (clean > after).cpu().numpy(),
            }
            frames.append(pd.DataFrame(columns))
    table: pd.DataFrame = pd.concat(frames[1:] or frames, ignore_index=True)
    return table


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where the target is randomised: single passes and single gradients then mislead."""
    probe = evidence.probe(NAME)
    if probe is None or "repeated" not in probe.tables:
        why = f"no image was shown twice: {evidence.why_not(NAME)}"
        return not_run(NAME, _SOURCE, why, how_to_run(evidence, NAME, searches=False))
    table = probe.tables["repeated"]
    broken = int(table["difference"].isna().sum())
    if broken:
        return Finding(
            check=NAME, status="warn", samples=len(table), source=_SOURCE,
            summary=f"NaN or infinite logits on {broken} of {len(table)} images shown again",
            next="fix the model: its logits are not finite",
        )  # fmt: skip
    if not probe.facts.get("randomised"):
        on_its_batch = _depends_on_its_batch(evidence)
        return Finding(
            check=NAME, status="warn" if on_its_batch else "pass", samples=len(table),
            source=_SOURCE,
            summary=f"the same logits for {len(table)} images shown again"
            + (" in the same batch only: see batch-dependence" if on_its_batch else ""),
            value=float(table["difference"].max()),
        )  # fmt: skip
    wrong, back = evidence.mostly_wrong, evidence.given_back
    again = resubmissions(evidence)
    return Finding(
        check=NAME,
        status="fail" if (len(wrong) - len(back)) / evidence.n > tolerance else "warn",
        summary=(
            f"the model is random: shown again, {table['flips'].mean():.0%} of the images get "
            f"another answer; {len(wrong)} survivors are wrong in most answers, and {len(back)} "
            "others are right in most; the checks average gradients over many draws"
            + (f"; {in_words(again)}" if again else "")
        ),
        value=float(table["flips"].mean()),
        interval=interval(int(table["flips"].sum()), len(table)),
        samples=len(table),
        source=_SOURCE,
        next=averaged(evidence),
        data={
            "survived_by_luck": len(wrong),
            "fooled_by_luck": len(back),
            "resubmission": [one.model_dump() for one in again],
        },
    )


def _gather_surest(context: CheckContext, restarts: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Search the example that most draws get wrong, for every sample that the checks attack.

    Cost: see `surest`, for each survivor.
    """
    table = AttemptTable()
    for rows in batches:
        before = context.meter.forwards
        with context.seeded(f"{_SUREST} {int(rows.sample[0])}"):
            found = search.surest(context, rows, restarts)
        spent = context.meter.forwards - before
        table.put(
            context, rows, Shown(_SUREST, "eot", found.images, found.wrong, search.SHOWN, spent)
        )
    return table.evidence({"restarts": restarts})


def _gather_confirmed(context: CheckContext, draws: int) -> ProbeEvidence:
    """Show the best example of each sample in fresh draws, after all attempts.

    Which example is best was chosen by other draws, so this estimate has no selection in it.

    Cost: `draws` forward passes for each sample with an example.
    """
    best = best_examples(context)
    frames = [pd.DataFrame({"sample": [], "wrong": []})]
    with context.seeded(CONFIRMED):
        for rows in context.rows(np.array(sorted(best), np.int64)):
            images = torch.stack([best[int(number)] for number in rows.sample])
            wrong = context.share_wrong(images.to(context.device), rows.labels, draws)
            columns = {"sample": rows.sample.cpu().numpy(), "wrong": wrong.cpu().numpy()}
            frames.append(pd.DataFrame(columns))
    table = pd.concat(frames, ignore_index=True)
    return ProbeEvidence({"draws": draws}, {CONFIRMED: table})


def _depends_on_its_batch(evidence: Evidence) -> bool:
    facts = facts_of(evidence)
    return facts is not None and facts.depends_on_its_batch


def _cost_of_surest(context: CheckContext, restarts: int) -> float:
    each = restarts * (search.STEPS * search.DRAWS + search.SHOWN)
    return len(context.survivors) * each if context.randomised else 0


def _cost_of_confirmed(context: CheckContext, draws: int) -> float:
    return int((~context.samples["failed"]).sum()) * draws if context.randomised else 0


_WHY = (
    "If the model gives different logits for the same image, a single gradient and a single "
    "prediction are not reliable. A sample may survive by chance."
)

CHECK = Check(
    NAME,
    _SOURCE,
    _WHY,
    _judge,
    (
        Probe(
            NAME,
            _gather,
            every_level(4),
            lambda context, calls: _SAMPLES * calls,
            order=0,
            searches=False,
            per_survivor=False,
        ),
        Probe(
            _SUREST,
            InParts(_gather_surest),
            {"fast": 3, "standard": 6, "full": 12},
            _cost_of_surest,
            order=900,
            stored_as=lambda context, n: f"{_SUREST}-{n}" if context.randomised else None,
            reads=(),
        ),
        Probe(
            CONFIRMED,
            _gather_confirmed,
            {"fast": 101, "standard": 151, "full": 201},
            _cost_of_confirmed,
            order=950,
            stored_as=lambda context, draws: f"{CONFIRMED}-{draws}" if context.randomised else None,
            searches=False,
            per_survivor=False,
        ),
    ),
    decisive=True,
)
