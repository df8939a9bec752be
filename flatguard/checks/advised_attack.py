"""Attacks that a finding advises: each runs in the target's norm and with its number of classes."""

from __future__ import annotations

from flatguard.checks.evidence import Evidence

_AUTOATTACK = ("Linf", "L2", "L1")
_DLR, _TARGETED_DLR = 3, 4
"""The classes that DLR losses need; see flatguard.attacks.class_limits."""
_SCALE_FREE = ("apgd-dlr", "apgd-t", "fab", "fab-t", "standard", "plus")
"""Attacks whose loss, or one of whose losses, does not depend on the scale of the logits."""
_EOT_PGD = "torchattacks:EOTPGD"
_RESTARTS, _DRAWS = 5, 20


def stronger(evidence: Evidence) -> str:
    """An attack that is stronger than a weak one."""
    if evidence.norm not in _AUTOATTACK or evidence.attack == "plus":
        return "evaluate again with more steps and restarts"
    if evidence.num_classes < _TARGETED_DLR:
        return f"evaluate again with --attack apgd-ce --attack-arg n_restarts={_restarts(evidence)}"
    named = "plus" if evidence.attack == "standard" else "standard"
    return f"evaluate again with --attack {named}"


def _restarts(evidence: Evidence) -> int:
    """Five, or twice as many as the audited attack had."""
    had = evidence.attack_args.get("n_restarts") if evidence.attack == "apgd-ce" else None
    return max(_RESTARTS, 2 * had) if isinstance(had, int) else _RESTARTS


def scale_free(evidence: Evidence) -> str:
    """An attack whose loss does not depend on the scale of the logits."""
    if evidence.norm not in _AUTOATTACK:
        return "attack the margin of the logits instead of cross-entropy"
    if evidence.attack in _SCALE_FREE:
        return "evaluate again with more steps and restarts"
    named = "apgd-dlr" if evidence.num_classes >= _DLR else "fab"
    return f"attack with a loss that confidence does not make vanish: --attack {named}"


def averaged(evidence: Evidence) -> str:
    """An attack that averages its gradients over draws."""
    if evidence.attack == _EOT_PGD:
        draws = evidence.attack_args.get("eot_iter")
        more = max(_DRAWS, 2 * draws) if isinstance(draws, int) else _DRAWS
        return f"average the attack's gradients over more draws: --attack-arg eot_iter={more}"
    if evidence.attack == "rand":
        return "attack with gradients that are averaged over more of the model's random draws"
    if evidence.norm == "Linf":
        return f"average the attack's gradients over the model's random draws: --attack {_EOT_PGD}"
    if evidence.norm in _AUTOATTACK and evidence.num_classes >= _DLR:
        return "average the attack's gradients over the model's random draws: --attack rand"
    return "attack with gradients that are averaged over the model's random draws (EOT)"
