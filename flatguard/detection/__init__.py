"""Sharpness-threshold detection of adversarial examples: a diagnostic, not a defence.

`SharpnessDetector` is imported at its first use; it needs the `detection` extra.

Internal, except `SharpnessDetector` and what docs/reference/api.md lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flatguard.detection.detector import SharpnessDetector

__all__ = ["SharpnessDetector"]


def __getattr__(name: str) -> Any:
    if name != "SharpnessDetector":
        raise AttributeError(f"module 'flatguard.detection' has no attribute {name!r}")
    from flatguard.detection.detector import SharpnessDetector

    return SharpnessDetector
