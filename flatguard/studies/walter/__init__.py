"""Walter et al. (2026): every figure and table, and the statements that a model can test."""

from __future__ import annotations

from dataclasses import replace

from flatguard.studies.study import Study
from flatguard.studies.walter.basins import LONG_L2, WEAK_L2, basins_of, basins_of_two
from flatguard.studies.walter.definitions import lemma10_of
from flatguard.studies.walter.features import lemma7_of
from flatguard.studies.walter.layers import layers_of
from flatguard.studies.walter.losses import lemma11_of, lemma12_of, table1_of
from flatguard.studies.walter.radius import proposition9_of
from flatguard.studies.walter.rise_bound import equation5_of
from flatguard.studies.walter.scale_sweep import sweep_of
from flatguard.studies.walter.valley import PGD10, valley_of

FIG1 = Study(
    "walter-fig1",
    "walter2026",
    "Figure 1",
    "Flatness in the weights gives a radius in the features, and a region of the input.",
    "no measurement",
    "illustration",
    "the figure is a drawing; walter-prop9 measures what it shows",
)
FIG2 = Study(
    "walter-fig2",
    "walter2026",
    "Figure 2",
    "The larger the scale of the logits, the longer the loss stays flat along the attack.",
    "90.33% robust accuracy under the weak attack",
    "runs-here",
    run=basins_of,
    protocol=WEAK_L2,
    samples=500,
)
FIG3 = Study(
    "walter-fig3",
    "walter2026",
    "Figure 3",
    "Along PGD sharpness peaks at the boundary, then falls to near zero: the uncanny valley.",
    "no number",
    "runs-here",
    run=valley_of,
    protocol=PGD10,
    samples=500,
)
FIG13 = Study(
    "walter-fig13",
    "walter2026",
    "Figure 13",
    "Scaling the head makes attacks fail, while the examples of s = 1 still fool it.",
    "0% at s = 1, 93% at s = 100; transfer 100%",
    "runs-here",
    run=sweep_of,
    protocol=PGD10,
    samples=200,
)


def _other(number: int, network: str) -> Study:
    """Figure 2 for a network whose checkpoint is not here."""
    return replace(
        FIG2,
        name=f"walter-fig{number}",
        reference=f"Figure {number}",
        claim=f"As Figure 2, for {network}.",
        number="no number",
        status="needs-checkpoint",
        why=f"give it a {network} by --model",
    )


OTHER_NETWORKS = tuple(
    _other(number, network)
    for number, network in (
        (4, "VGG11 on CIFAR-10"), (5, "VGG11 on CIFAR-100"), (7, "ResNet-18 on CIFAR-100"),
        (8, "WideResNet-28-4 on CIFAR-10"), (9, "WideResNet-28-4 on CIFAR-100"),
        (10, "DenseNet121 on CIFAR-10"), (11, "DenseNet121 on CIFAR-100"),
    )
)  # fmt: skip
FIG6 = replace(
    FIG2,
    name="walter-fig6",
    reference="Figure 6",
    claim="As Figure 2, for ResNet-18 on CIFAR-10 at all scales.",
    number="no number",
    samples=100,
)
FIG12 = replace(
    FIG2,
    name="walter-fig12",
    reference="Figure 12",
    claim="As Figure 2 for an adversarially trained network, with basins 20 times as wide.",
    number="20 times as wide; tr H 0.6 clean, 1.0 adversarial",
    run=basins_of_two,
    protocol=LONG_L2,
    samples=300,
    models="many",
)
FIG15 = Study(
    "walter-fig15",
    "walter2026",
    "Figure 15",
    "Adversarial prompts for language models first get sharper, then flatter.",
    "no number",
    "planned",
    "language models are not image classifiers",
)
FIG16 = replace(
    FIG3,
    name="walter-fig16",
    reference="Figure 16",
    claim="As Figure 3, for other networks.",
    samples=200,
)

FIG14 = replace(
    FIG3,
    name="walter-fig14",
    reference="Figure 14",
    claim="Layers before the head show the same peak and valley.",
    run=layers_of,
    samples=8,
)
TABLE1 = Study(
    "walter-table1",
    "walter2026",
    "Table 1",
    "Which losses satisfy assumption (A) of Lemma 12.",
    "a mark for each of six losses",
    "runs-here",
    run=table1_of,
    models="none",
)
LEMMA7 = Study(
    "walter-lemma7",
    "walter2026",
    "Lemma 7",
    "An attack within δ moves the features by at most Δ = L δ / r.",
    "Δ ≤ L δ / r",
    "runs-here",
    run=lemma7_of,
    protocol=WEAK_L2,
    samples=50,
)
EQ5 = replace(
    LEMMA7,
    name="walter-eq5",
    reference="Equation 5, Proposition 8",
    claim="Gradient, relative sharpness and a remainder bound the rise of the loss.",
    number="always",
    run=equation5_of,
)
PROP9 = replace(
    LEMMA7,
    name="walter-prop9",
    reference="Proposition 9",
    claim="Within a radius δ that grows as sharpness falls, the loss rises by at most ε.",
    number="δ ∝ κ^(-1/3), saturating at (r/L)(24ε / (k m L³))^⅓",
    run=proposition9_of,
)
LEMMA10 = replace(
    FIG3,
    name="walter-lemma10",
    reference="Definitions 4 to 6, Lemma 10",
    claim="Flips of the prediction and rises of the loss imply each other.",
    number="always",
    run=lemma10_of,
    samples=200,
)
LEMMA11 = replace(
    LEMMA10,
    name="walter-lemma11",
    reference="Lemma 11",
    claim="Any score of polynomial growth vanishes as the logits are scaled up.",
    number="the limit is 0",
    run=lemma11_of,
)
LEMMA12 = replace(
    LEMMA10,
    name="walter-lemma12",
    reference="Lemma 12, Section 6.2",
    claim="Other losses flatten with confidence too, and have the same valley.",
    number="the limit is 0",
    run=lemma12_of,
)

WALTER: tuple[Study, ...] = (
    FIG1, FIG2, FIG3, *OTHER_NETWORKS[:2], FIG6, *OTHER_NETWORKS[2:], FIG12, FIG13, FIG14, FIG15,
    FIG16, TABLE1, LEMMA7, EQ5, PROP9, LEMMA10, LEMMA11, LEMMA12,
)  # fmt: skip
