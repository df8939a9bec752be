"""The terms that terminal and reports use, in plain words: on every page, and in the docs.

A page lists the terms that occur on it, and those that their meanings use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from html import unescape

_HIDDEN = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.DOTALL)


@dataclass(frozen=True)
class Term:
    """A term and what it means, in one or two sentences.

    Attributes:
        name: the term, or several with commas between them.
        meaning: in plain words.
        forms: how it occurs in a text; the parts of its name where none are given.
    """

    name: str
    meaning: str
    forms: tuple[str, ...] = ()

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        forms = "|".join(re.escape(form) for form in self.forms or self.name.split(", "))
        return re.compile(rf"(?<!\w)(?:{forms})s?(?!\w)", re.IGNORECASE)

    def occurs_in(self, text: str) -> bool:
        """Whether the text uses the term, also in the plural."""
        return self._pattern.search(text) is not None


def terms_on(page: str) -> tuple[Term, ...]:
    """The terms that a page shows, and those that explain them."""
    seen, text = set[str](), unescape(_HIDDEN.sub(" ", page))
    while found := [term for term in TERMS if term.name not in seen and term.occurs_in(text)]:
        seen |= {term.name for term in found}
        text = " ".join(term.meaning for term in found)
    return tuple(term for term in TERMS if term.name in seen)


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
    Term(
        "threat",
        "A budget, with the attack that searches within it. A model that withstands one threat may "
        "fail under another.",
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
        "range. For a share of images it is exact (Clopper-Pearson).",
        ("95% interval", "Clopper-Pearson"),
    ),
    Term(
        "p",
        "How likely a result at least this clear is if there is no real difference. 0.01 is one "
        "in a hundred.",
        ("p =", "p <", "p-value"),
    ),
    Term(
        "plain search, beyond chance",
        "A plain search follows the model's own gradient, from a random start. An image that "
        "neither it nor the audited attack from another random seed fools is not fooled by "
        "chance: if an attack on a twin fools it, the twin is the reason.",
        ("plain search", "plain searche", "beyond chance"),
    ),
    Term(
        "survivor",
        "An image that the audited attack did not fool.",
        ("survivor", "survive", "survived"),
    ),
    Term(
        "twin",
        "A copy of the model that makes the same decisions and is easier to attack, for example "
        "with smaller logits. What fools a twin also fools the model.",
    ),
    Term(
        "logits",
        "The model's raw scores, one for each class, before the softmax turns them into "
        "probabilities. The largest one decides.",
        ("logit",),
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
    Term(
        "state",
        "The model's answers depend on what it was asked before.",
        ("by state", "or state", "state, with"),
    ),
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
        "logit sharpness",
        "How strongly the loss bends when the logits change. It takes the place of κ where the "
        "model's last layer cannot be found. Shown as a logarithm.",
    ),
    Term(
        "flat, sharp",
        "Flat: the loss barely changes nearby, where the image or the weights change a little. "
        "Sharp: it changes much.",
        ("flat", "flatter", "flatness", "sharp", "sharper", "sharpness"),
    ),
    Term(
        "Hessian, tr H",
        "The second derivatives of the loss: how strongly it bends in each direction. tr H (the "
        "trace) is their sum over all directions.",
        ("Hessian", "tr H", "curvature"),
    ),
    Term(
        "ridge, uncanny valley",
        "On its way across the decision boundary, an image passes high κ (the ridge); beyond it "
        "lies a region where the model is flat, certain, and wrong (the valley).",
    ),
    Term(
        "head",
        "The model's last linear layer. Its inputs are the features of the image, its outputs are "
        "the logits.",
        ("head", "penultimate", "final linear layer"),
    ),
    Term(
        "detector",
        "A rule that flags images as adversarial, here by a threshold on κ. It is a diagnostic, "
        "not a defence: an attacker who knows the threshold can stay within it.",
    ),
    Term(
        "false positive",
        "A clean image that a detector flags. The rate is the share of clean images that it flags.",
        ("false positive", "FPR"),
    ),
    Term(
        "calibration image",
        "A clean image that serves only to set a detector's thresholds, so that it flags about as "
        "many clean images as was asked for.",
        ("calibration", "calibration image", "calibrated"),
    ),
    Term(
        "adaptive attack",
        "An attack that knows the detector: it searches images that the model classifies wrongly "
        "and that the detector does not flag.",
        ("adaptive attack", "knows the detector", "knows the threshold"),
    ),
    Term(
        "AUROC",
        "How often a detector finds an adversarial example more unusual than a clean image. 0.5 is "
        "guessing, 1 is never wrong. One-sided: where only low scores, or only high ones, count as "
        "unusual.",
        ("AUROC", "ROC"),
    ),
    Term(
        "stump",
        "One threshold that is learnt from clean and adversarial images. Its accuracy is counted "
        "on images that it was not learnt from (in folds); guessing reaches 50%.",
        ("stump", "decision stump"),
    ),
    Term(
        "suffix",
        "The text that an attack on a language model adds to the prompt, so that the model answers "
        "with what the attack wants to hear (the target).",
        ("suffix", "suffixe"),
    ),
    Term(
        "greedy answer",
        "The answer of a language model that takes the most likely token at each step. A sampled "
        "answer draws its tokens at random.",
        ("greedy answer", "sampled answer", "sampled"),
    ),
    Term("basin", "The region around an image in which the loss barely changes."),
    Term(
        "Lipschitz constant",
        "The most that an output moves for each unit that the input moves.",
    ),
    Term(
        "PGD",
        "A common attack (projected gradient descent): it takes steps along the gradient, and "
        "returns into the budget after each. PGD-10 takes ten.",
        ("PGD", "PGD-10", "PGD-7", "PGD-20"),
    ),
    Term(
        "gradient ascent",
        "A search that changes an image, or the weights, in steps that raise the loss fastest.",
        ("gradient ascent", "ascent", "ascend"),
    ),
    Term(
        "rank correlation, ρ",
        "Whether one number is large where another is large, by their order alone (Spearman's ρ): "
        "1 always, 0 no relation, -1 one is large where the other is small.",
        ("rank correlation", "ρ"),
    ),
    Term(
        "robust loss, robust error",
        "The loss, and the share of wrong answers, on images that an attack has changed.",
        ("robust loss", "RLoss", "robust error", "RErr"),
    ),
    Term(
        "flatness in weight space",
        "How much the robust loss rises when the model's weights are changed a little: on average "
        "over random changes, or for the worst change that was found. Lower is flatter. ξ is the "
        "size of the change, as a share of the size of each layer's weights.",
        ("weight space", "flat minima", "flatter minima", "ξ"),
    ),
    Term(
        "robust overfitting, early stopping",
        "Late in training the robust loss rises again on images that were not trained on (robust "
        "overfitting). Early stopping keeps the model from before that. The robust generalisation "
        "gap is the robust loss on test images minus that on training images.",
        ("robust overfitting", "early stopping", "early stop", "gap"),
    ),
    Term(
        "loss landscape",
        "The loss along straight lines through the model's weights, in random directions. At t = 0 "
        "is the model itself; at t = 1 each filter has moved by its own size.",
        ("landscape", "filter norm", "filter-normalised"),
    ),
    Term(
        "loss-change adversarial example",
        "A changed image on which the loss is higher by more than a tolerance, whether or not the "
        "answer is wrong. A model without any within a distance δ, for the tolerance ε, is called "
        "(δ, ε)-robust there.",
        ("loss-change", "-robust", "(δ, ε)", "ε_*"),
    ),
    Term(
        "forward and backward pass",
        "One evaluation of the model on one image, and one gradient. They are the cost of an "
        "attack.",
        ("forward pass", "forward passe", "backward pass", "backward passe"),
    ),
)
