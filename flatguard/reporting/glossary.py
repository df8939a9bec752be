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
        "range. It is exact (Clopper-Pearson).",
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
        "ridge, uncanny valley",
        "On its way across the decision boundary, an image passes high κ (the ridge); beyond it "
        "lies a region where the model is flat, certain, and wrong (the valley).",
    ),
    Term(
        "detector",
        "A rule that flags images as adversarial, here by a threshold on κ. A false positive is a "
        "clean image that it flags.",
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
        "forward and backward pass",
        "One evaluation of the model on one image, and one gradient. They are the cost of an "
        "attack.",
        ("forward pass", "forward passe", "backward pass", "backward passe"),
    ),
)
