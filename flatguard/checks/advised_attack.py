"""Attacks that a finding advises: each runs in the target's norm and with its number of classes."""

from __future__ import annotations

from flatguard.checks.evidence import Evidence

_AUTOATTACK = ("Linf", "L2", "L1")
_DLR, _TARGETED_DLR = 3, 4
"""The classes that DLR losses need; see flatguard.attacks.class_limits."""


def stronger(evidence: Evidence) -> str:
    """An attack that is stronger than a weak one."""
    if evidence.norm not in _AUTOATTACK:
        return "evaluate again with more steps and restarts"
    if evidence.num_classes < _TARGETED_DLR:
        return "evaluate again with --attack apgd-ce --attack-arg n_restarts=5"
    named = "plus" if evidence.attack == "standard" else "standard"
    return f"evaluate again with --attack {named}"


def scale_free(evidence: Evidence) -> str:
    """An attack whose loss does not depend on the scale of the logits."""
    if evidence.norm not in _AUTOATTACK:
        return "attack the margin of the logits instead of cross-entropy"
    named = "apgd-dlr" if evidence.num_classes >= _DLR else "fab"
    return f"attack with a scale-free loss: --attack {named}"


def averaged(evidence: Evidence) -> str:
    """An attack that averages its gradients over draws."""
    if evidence.norm == "Linf":
        return "attack with expectation over transformation: --attack torchattacks:EOTPGD"
    if evidence.norm in _AUTOATTACK and evidence.num_classes >= _DLR:
        return "attack with expectation over transformation: --attack rand"
    return "attack with gradients that are averaged over draws of the model (EOT)"
