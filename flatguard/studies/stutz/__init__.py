"""Stutz et al. (2021): every figure and table of the workshop version."""

from __future__ import annotations

from flatguard.studies.study import Status, Study

NOT_YET = "its code is not written yet"


def _entry(name: str, reference: str, claim: str, number: str, status: Status, why: str) -> Study:
    return Study(f"stutz-{name}", "stutz2021", reference, claim, number, status, why)


STUTZ: tuple[Study, ...] = (
    _entry(
        "fig1", "Figure 1",
        "Robust loss and its flatness in weight space are clearly correlated across methods.",
        "a clear relationship", "planned", NOT_YET,
    ),
    _entry(
        "fig2", "Figure 2",
        "Test robust loss rises again late in training, on correctly classified examples too.",
        "RLoss around 4 at the end", "planned", NOT_YET,
    ),
    _entry(
        "fig3", "Figure 3",
        "How flatness is measured: RLoss after perturbing the weights, minus the reference.",
        "no measurement", "illustration", "the figure is a drawing",
    ),
    _entry(
        "fig4", "Figure 4",
        "The landscape along filter-normalised directions does not depend on a layer's scale.",
        "the same for x2 and x0.5", "planned", NOT_YET,
    ),
    _entry(
        "fig5", "Figure 5",
        "Robust loss and flatness worsen together over the epochs.",
        "a clear correlation", "planned", NOT_YET,
    ),
    _entry(
        "fig6", "Figure 6",
        "Hyper-parameters with lower robust loss correspond to flatter minima.",
        "a clear relation", "planned", NOT_YET,
    ),
    _entry(
        "fig7", "Figure 7",
        "Flatness on test and on training examples, and the robust generalisation gap.",
        "a clear correlation", "planned", NOT_YET,
    ),
    _entry(
        "table1", "Table 1",
        "Most methods that lower robust error also find flatter minima.",
        "flatness 1.21 (AT) against 0.35 (AT-AWP)", "planned", NOT_YET,
    ),
)  # fmt: skip
