"""Stutz et al. (2021): every figure and table of the workshop version."""

from __future__ import annotations

from flatguard.studies.study import Protocol, Study
from flatguard.studies.stutz import across_models, methods, over_epochs, rescaling
from flatguard.studies.stutz.from_runs import study_of

AUTOATTACK = Protocol(attack="standard")

STUTZ: tuple[Study, ...] = (
    Study(
        "stutz-fig1", "stutz2021", "Figure 1",
        "Robust loss and its flatness in weight space are clearly correlated across methods.",
        "a clear relationship", "runs-here",
        run=study_of(across_models.figure_1), protocol=AUTOATTACK, samples=1000, models="runs",
    ),
    Study(
        "stutz-fig2", "stutz2021", "Figure 2",
        "Test robust loss rises again late in training, on correctly classified examples too.",
        "RLoss around 4 at the end", "runs-here",
        run=study_of(over_epochs.figure_2), protocol=AUTOATTACK, samples=1000, models="runs",
    ),
    Study(
        "stutz-fig3", "stutz2021", "Figure 3",
        "How flatness is measured: RLoss after perturbing the weights, minus the reference.",
        "no measurement", "illustration", "the figure is a drawing",
    ),
    Study(
        "stutz-fig4", "stutz2021", "Figure 4",
        "The landscape along filter-normalised directions does not depend on a layer's scale.",
        "the same for x2 and x0.5", "runs-here",
        run=rescaling.study, protocol=AUTOATTACK, samples=rescaling.SAMPLES,
    ),
    Study(
        "stutz-fig5", "stutz2021", "Figure 5",
        "Robust loss and flatness worsen together over the epochs.",
        "a clear correlation", "runs-here",
        run=study_of(over_epochs.figure_5), protocol=AUTOATTACK, samples=1000, models="runs",
    ),
    Study(
        "stutz-fig6", "stutz2021", "Figure 6",
        "Hyper-parameters with lower robust loss correspond to flatter minima.",
        "a clear relation", "runs-here",
        run=study_of(methods.figure_6), protocol=AUTOATTACK, samples=1000, models="runs",
    ),
    Study(
        "stutz-fig7", "stutz2021", "Figure 7",
        "Flatness on test and on training examples, and the robust generalisation gap.",
        "a clear correlation", "runs-here",
        run=study_of(across_models.figure_7), protocol=AUTOATTACK, samples=1000, models="runs",
    ),
    Study(
        "stutz-table1", "stutz2021", "Table 1",
        "Most methods that lower robust error also find flatter minima.",
        "flatness 1.21 (AT) against 0.35 (AT-AWP)", "runs-here",
        run=study_of(methods.table_1), protocol=AUTOATTACK, samples=1000, models="runs",
    ),
)  # fmt: skip
