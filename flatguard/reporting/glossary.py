"""The terms that terminal and reports use, in plain words: in every report, and in the docs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A term and what it means, in one or two sentences."""

    name: str
    meaning: str


TERMS: tuple[Term, ...] = (
    Term(
        "adversarial example",
        "An image that was changed so little that it should not matter (within the budget), and "
        "that the model classifies wrongly.",
    ),
    Term(
        "attack",
        "A program that searches adversarial examples. Most attacks follow the gradient of the "
        "loss: the direction of change that makes the model's answer worse fastest.",
    ),
    Term(
        "budget, ε",
        "How far an attack may change an image. Linf 8/255: each colour value by at most 8 of its "
        "255 levels.",
    ),
    Term("clean accuracy", "The share of images that the model classifies correctly, unchanged."),
    Term(
        "robust accuracy",
        "The share of images that the model classifies correctly both unchanged and under the "
        "attack. An attack that fails for its own reasons makes this number too high.",
    ),
    Term(
        "corrected robust accuracy",
        "The share of images that no attempt fooled: neither the audited attack nor flatguard's "
        "own. The true robust accuracy is at most this, up to the interval.",
    ),
    Term(
        "95% interval",
        "The range of true values that fit what was counted on these images; fewer images, wider "
        "range. It is exact (Clopper-Pearson).",
    ),
    Term(
        "p",
        "How likely a result at least this clear is if there is no real difference. 0.01 is one "
        "in a hundred.",
    ),
    Term(
        "beyond chance",
        "Not fooled by the attack's repetition with other random numbers, nor by a plain search of "
        "the same length. If a twin's attack fools such an image, the twin is the reason.",
    ),
    Term("survivor", "An image that the audited attack did not fool."),
    Term(
        "twin",
        "A copy of the model that makes the same decisions and is easier to attack, for example "
        "with smaller logits. What fools a twin also fools the model.",
    ),
    Term(
        "logits",
        "The model's raw scores, one for each class, before the softmax turns them into "
        "probabilities. The largest one decides.",
    ),
    Term(
        "margin",
        "The logit of the right class minus the largest other one. Below 0, the answer is wrong.",
    ),
    Term(
        "loss",
        "How bad the model's answer is, as one number; here cross-entropy. 0 means certain and "
        "right.",
    ),
    Term(
        "masked",
        "The attack failed because of how the model computes, not because the model is robust. "
        "The number is too high, and a mechanism explains why.",
    ),
    Term(
        "saturation",
        "The model is so certain that its probabilities round to 0 and 1. The loss is flat, its "
        "gradient vanishes, and the attack has no direction to follow.",
    ),
    Term(
        "unavailable-gradient",
        "A step in the model, such as a rounding, cuts the gradient: it is missing or wrong, and "
        "the attack follows nothing.",
    ),
    Term(
        "shattered-gradient",
        "The gradient holds only for tiny changes and points elsewhere a little further on.",
    ),
    Term("rugged-loss", "The loss has many small bumps, and a short search gets stuck on one."),
    Term("stochastic", "The model is random, so one gradient and one answer mislead."),
    Term("state", "The model's answers depend on what it was asked before."),
    Term(
        "overestimated",
        "Other attacks within the same budget fool more images than the audited one. The number "
        "is too high; no mechanism was found.",
    ),
    Term("consistent", "No check found evidence against the number."),
    Term("vulnerable", "The model is proven to be no better than guessing under the attack."),
    Term(
        "inconclusive",
        "The checks that would decide did not run, or they contradict each other. It is never a "
        "pass.",
    ),
    Term(
        "relative sharpness, κ",
        "How strongly the loss bends when the weights of the last layer change, made independent "
        "of their scale. Large: uncertain, near a decision boundary. Small: flat and certain. "
        "Shown as log κ, because it spans hundreds of powers of ten.",
    ),
    Term(
        "ridge, uncanny valley",
        "On its way across the decision boundary, an image passes high κ (the ridge); beyond it "
        "lies a region where the model is flat, certain, and wrong (the valley).",
    ),
    Term("basin", "The region around an image in which the loss barely changes."),
    Term(
        "forward and backward pass",
        "One evaluation of the model on one image, and one gradient. They are the cost of an "
        "attack.",
    ),
)
