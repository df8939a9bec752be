"""What the model does on the clean images, as it was measured before the attack."""

from __future__ import annotations

from flatguard.checks.missing_evidence import how_to_run
from flatguard.checks.preflight.accuracy import clean_accuracy
from flatguard.checks.preflight.facts import Difference, PreflightFacts, facts_of, stored
from flatguard.checks.preflight.repeats import repeatable
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.templating import facts_table
from flatguard.reporting.text import counted, number, percent
from flatguard.runs.check_evidence import PREFLIGHT as PREFLIGHT_PROBE


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    facts, accuracy = facts_of(judged.evidence), clean_accuracy(judged.evidence)
    if facts is None or facts.clean is None or accuracy is None:
        return NotMeasured(
            "the model was not tried on clean images before the attack",
            how_to_run(judged.evidence, PREFLIGHT_PROBE, searches=False),
        )
    rows = _rows(facts)
    rows.insert(0, ("clean accuracy", accuracy.undecided or accuracy.text))
    rows.insert(1, ("chance", percent(accuracy.chance.guess)))
    return SectionContent(
        html=facts_table(rows),
        intro=(
            f"{counted(len(facts.clean.samples), 'clean image')} classified before the attack, "
            f"some of them several times: {facts.forwards:,} forward passes of one image. An image "
            "that is shown again, in whichever batch and after whichever calls, should get the "
            "same logits."
        ),
        data={**stored(facts), "cause": accuracy.cause},
    )


def _rows(facts: PreflightFacts) -> list[tuple[str, str]]:
    rows = [
        ("shown again", repeatable(facts).summary),
        ("beside other images", _difference(facts.other_neighbours)),
        ("in a smaller batch", _difference(facts.smaller_batch)),
        ("as a single image", facts.single_image or "works"),
        ("after other calls", _difference(facts.after_calls)),
    ]
    if facts.published is not None:
        share, entry = percent(facts.published.accuracy), facts.published.entry
        rows.insert(0, ("published", f"{share} for {entry}"))
    if facts.clean is not None:
        low, high = facts.clean.lowest_pixel, facts.clean.highest_pixel
        rows.append(("pixels", f"from {number(low, 3)} to {number(high, 3)}"))
    if facts.output is not None:
        low, high = facts.output.lowest, facts.output.highest
        rows.append(("output", f"{facts.output.kind} from {number(low)} to {number(high)}"))
    if facts.precision is not None:
        rows.append(("precision", facts.precision.text))
    rows += [
        (f"{each.name} tried", f"{each.correct} of {each.images} right, {each.own} without")
        for each in facts.tried
    ]
    return rows


def _difference(found: Difference | None) -> str:
    if found is None:
        return "not compared"
    if found.largest is None:
        return "logits that are not finite"
    changed = f"{found.flips} of {found.images} decisions change"
    return f"logits differ by {found.largest:.2g} of their size; {changed}"


PREFLIGHT = Section("preflight", "Before the attack", _build)
