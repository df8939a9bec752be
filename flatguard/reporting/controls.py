"""Items of laws and standards that auditors name, and which findings of a run bear on them.

The editions are cited as they were published. The items are put in our own words, and nothing here
claims conformity with any of them: a run examines one model on one set of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flatguard.checks.finding import Finding
from flatguard.reporting.findings import STATUS_WORDS, finding_cards
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.templating import render_page

_ATTACK = (
    "discrepancy", "gradient-truth", "scale-free-loss", "black-box", "more-budget",
    "surrogate-transfer", "recorded-mistakes", "basin", "output", "input-gradient",
)  # fmt: skip
_CONSISTENCY = (
    "determinism", "batch-dependence", "earlier-calls", "input-writes", "model-changes",
)  # fmt: skip
_ACCURACY = ("clean-accuracy",)


@dataclass(frozen=True)
class Control:
    """An item of a law or a standard.

    Attributes:
        item: its number or name there.
        topic: what it is about, in our words.
        contributes: what a run contributes to it.
        leaves_open: what it asks for that no run of flatguard examines.
        checks: the names of the checks that bear on it.
    """

    item: str
    topic: str
    contributes: str
    leaves_open: str
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Framework:
    """A law or a standard, in one edition."""

    name: str
    edition: str
    controls: tuple[Control, ...]


FRAMEWORKS = (
    Framework(
        "EU Artificial Intelligence Act",
        "Regulation (EU) 2024/1689 of 13 June 2024, OJ L, 2024/1689, 12.7.2024. Article 15 is "
        "about high-risk AI systems.",
        (
            Control(
                "Article 15(1)",
                "Appropriate accuracy, robustness and cybersecurity, and consistent performance.",
                "Accuracy without an attack and within the budget, and whether the answers stay "
                "the same: between calls, in other batches, after other inputs.",
                "Which level is appropriate for the purpose; the system around the model; its "
                "whole lifecycle.",
                (*_ACCURACY, *_CONSISTENCY),
            ),
            Control(
                "Article 15(3)",
                "Levels and metrics of accuracy that the instructions for use declare.",
                "The definition of each number, its exact 95% interval, and whether the reported "
                "robust accuracy holds.",
                "What is declared, and where.",
                (*_ACCURACY, "discrepancy"),
            ),
            Control(
                "Article 15(4)",
                "Resilience to errors, faults and inconsistencies.",
                "Faults of the model that show on repeated, reordered and batched inputs.",
                "Redundancy, backup and fail-safe plans; feedback loops of systems that learn on.",
                _CONSISTENCY,
            ),
            Control(
                "Article 15(5)",
                "Resilience against attempts of third parties, among them adversarial examples "
                "(model evasion).",
                "Attacks on the model within a stated budget, and evidence whether they can be "
                "believed.",
                "Data poisoning, model poisoning, attacks on confidentiality, and inputs outside "
                "the budget.",
                _ATTACK,
            ),
        ),
    ),
    Framework(
        "ISO/IEC 24029, Assessment of the robustness of neural networks",
        "ISO/IEC TR 24029-1:2021, first edition, and ISO/IEC 24029-2:2023, first edition.",
        (
            Control(
                "ISO/IEC TR 24029-1:2021, Overview",
                "Statistical, formal and empirical methods to assess robustness.",
                "An empirical assessment by attacks, with exact statistics on the images that were "
                "evaluated.",
                "Formal methods, field trials, and disturbances other than those of the budget.",
                (*_ACCURACY, *_ATTACK),
            ),
            Control(
                "ISO/IEC 24029-2:2023, Methodology for the use of formal methods",
                "Formal methods that prove a property of robustness.",
                "Counterexamples: an adversarial example disproves robustness within the budget at "
                "its image.",
                "Every proof. An image without a counterexample is not proven to be robust.",
                ("discrepancy", "recorded-mistakes", "black-box"),
            ),
        ),
    ),
    Framework(
        "NIST AI Risk Management Framework",
        "NIST AI 100-1, AI RMF 1.0, January 2023.",
        (
            Control(
                "MEASURE 2.7",
                "Security and resilience, as identified in the MAP function, are evaluated and "
                "documented.",
                "A documented evaluation of one threat: changes of the input within the budget. "
                "The request, seeds, versions and hashes that repeat it are in the report.",
                "The threats that the MAP function identifies beside this one.",
                (*_ATTACK, *_CONSISTENCY, *_ACCURACY),
            ),
        ),
    ),
    Framework(
        "OWASP Machine Learning Security Top Ten",
        "2023 edition, which OWASP calls a draft.",
        (
            Control(
                "ML01:2023 Input Manipulation Attack",
                "Inputs that are changed on purpose so that the model errs.",
                "How often such changes succeed within the budget, and whether the attack could "
                "find them.",
                "Changes outside the budget, and changes of physical objects.",
                _ATTACK,
            ),
            Control(
                "ML06:2023 AI Supply Chain Attacks",
                "Tampering with the model, its data or its software on the way to the user.",
                "An inventory with hashes, bom.cdx.json, that a deployed model can be compared "
                "with.",
                "Where model and packages come from. ML02 to ML05 and ML07 to ML10 are not "
                "examined.",
            ),
        ),
    ),
)


@dataclass(frozen=True)
class _Group:
    """The checks with one status that bear on an item."""

    word: str
    checks: tuple[str, ...]


def controls_page(judged: JudgedRun) -> str:
    """Every item with the findings that bear on it, as one self-contained page."""
    findings = judged.verdict.findings
    mapped = {name for frame in FRAMEWORKS for control in frame.controls for name in control.checks}
    frameworks = [
        (frame, [(control, _groups(control, findings)) for control in frame.controls])
        for frame in FRAMEWORKS
    ]
    return render_page(
        "controls.html.j2",
        verdict=judged.verdict,
        model=judged.run.manifest.target.name,
        budget=str(judged.budget),
        created=judged.run.manifest.created,
        run=judged.run.path.name,
        frameworks=frameworks,
        cards=finding_cards(judged.verdict),
        unmapped=[finding.check for finding in findings if finding.check not in mapped],
    )


def _groups(control: Control, findings: Sequence[Finding]) -> list[_Group]:
    """The findings that bear on an item, by status, the most serious first."""
    found = []
    for status, word in STATUS_WORDS.items():
        names = tuple(
            one.check for one in findings if one.status == status and one.check in control.checks
        )
        if names:
            found.append(_Group(word, names))
    return found
