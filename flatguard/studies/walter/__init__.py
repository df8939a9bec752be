"""Walter et al. (2026): every figure and table, and the statements that a model can test."""

from __future__ import annotations

from flatguard.studies.study import Status, Study

NOT_YET = "its code is not written yet"


def _entry(name: str, reference: str, claim: str, number: str, status: Status, why: str) -> Study:
    return Study(f"walter-{name}", "walter2026", reference, claim, number, status, why)


WALTER: tuple[Study, ...] = (
    _entry(
        "fig1", "Figure 1", "How flatness in weights becomes a robust region of the input.",
        "no measurement", "illustration", "the figure is a drawing",
    ),
    _entry(
        "fig2", "Figure 2", "Sharpness makes basins: the larger the scale, the longer the loss stays flat.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig3", "Figure 3", "Along PGD sharpness peaks, then falls to near zero on the adversarial side.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig4", "Figure 4", "As Figure 2, VGG11 on CIFAR-10.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig5", "Figure 5", "As Figure 2, VGG11 on CIFAR-100.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig6", "Figure 6", "As Figure 2, ResNet-18 on CIFAR-10, all scales.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig7", "Figure 7", "As Figure 2, ResNet-18 on CIFAR-100.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig8", "Figure 8", "As Figure 2, WideResNet-28-4 on CIFAR-10.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig9", "Figure 9", "As Figure 2, WideResNet-28-4 on CIFAR-100.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig10", "Figure 10", "As Figure 2, DenseNet121 on CIFAR-10.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig11", "Figure 11", "As Figure 2, DenseNet121 on CIFAR-100.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig12", "Figure 12", "As Figure 2, adversarially trained ResNet-18, in a radius 20 times as large.",
        "20 times", "planned", NOT_YET,
    ),
    _entry(
        "fig13", "Figure 13", "Scaling the head restores reported accuracy, and the examples of s = 1 still transfer.",
        "0% at s = 1, 93% at s = 100; transfer 100%", "planned", NOT_YET,
    ),
    _entry(
        "fig14", "Figure 14", "Earlier layers show the same peak and valley.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "fig16", "Figure 16", "As Figure 3, for other networks and CIFAR-100.",
        "no number printed", "planned", NOT_YET,
    ),
    _entry(
        "table1", "Table 1", "Which losses satisfy Lemma 12's assumption (A).",
        "five of six", "planned", NOT_YET,
    ),
    _entry(
        "fig15", "Figure 15", "Adversarial prompts first get sharper, then flatter.",
        "no number", "planned", "language models are not image classifiers",
    ),
)  # fmt: skip
