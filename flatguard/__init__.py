"""flatguard: can this robust accuracy be believed?

Importing this package imports no torch. It makes the attack and model libraries importable
together (`flatguard.environment.compat`). The public names below are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flatguard.environment import compat

if TYPE_CHECKING:
    from flatguard.checks.claims.answer import Answer
    from flatguard.checks.preflight.entry import preflight
    from flatguard.checks.preflight.judged import Preflight
    from flatguard.checks.verdict import Verdict
    from flatguard.errors import FlatguardError
    from flatguard.evaluation import audit, evaluate, resume
    from flatguard.integrations.trackers import log_run
    from flatguard.prompts import evaluate_prompts, resume_prompts
    from flatguard.recording.prompt_recorder import PromptRecorder
    from flatguard.recording.recorder import Recorder
    from flatguard.runs.merging import merge
    from flatguard.runs.prompt_run import PromptRun, load_prompt_run
    from flatguard.runs.run import Run, load_run
    from flatguard.targets import Target, load_target
    from flatguard.targets.language_model import LanguageModel, language_model
    from flatguard.targets.language_models import load_language_model
    from flatguard.targets.smoothing import Smoothed
    from flatguard.threats import evaluate_union, threats_of
    from flatguard.verification import verify, verify_run

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "FlatguardError",
    "LanguageModel",
    "Preflight",
    "PromptRecorder",
    "PromptRun",
    "Recorder",
    "Run",
    "Smoothed",
    "Target",
    "Verdict",
    "__version__",
    "audit",
    "evaluate",
    "evaluate_prompts",
    "evaluate_union",
    "language_model",
    "load_language_model",
    "load_prompt_run",
    "load_run",
    "load_target",
    "log_run",
    "merge",
    "preflight",
    "resume",
    "resume_prompts",
    "threats_of",
    "verify",
    "verify_run",
]

_HOME = {
    "Answer": "flatguard.checks.claims.answer",
    "FlatguardError": "flatguard.errors",
    "LanguageModel": "flatguard.targets.language_model",
    "Preflight": "flatguard.checks.preflight.judged",
    "PromptRecorder": "flatguard.recording.prompt_recorder",
    "PromptRun": "flatguard.runs.prompt_run",
    "Recorder": "flatguard.recording.recorder",
    "Run": "flatguard.runs.run",
    "Smoothed": "flatguard.targets.smoothing",
    "Target": "flatguard.targets",
    "Verdict": "flatguard.checks.verdict",
    "audit": "flatguard.evaluation",
    "evaluate": "flatguard.evaluation",
    "evaluate_prompts": "flatguard.prompts",
    "evaluate_union": "flatguard.threats",
    "language_model": "flatguard.targets.language_model",
    "load_language_model": "flatguard.targets.language_models",
    "load_prompt_run": "flatguard.runs.prompt_run",
    "load_run": "flatguard.runs.run",
    "load_target": "flatguard.targets",
    "log_run": "flatguard.integrations.trackers",
    "merge": "flatguard.runs.merging",
    "preflight": "flatguard.checks.preflight.entry",
    "resume": "flatguard.evaluation",
    "resume_prompts": "flatguard.prompts",
    "threats_of": "flatguard.threats",
    "verify": "flatguard.verification",
    "verify_run": "flatguard.verification",
}

compat.install_hook()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'flatguard' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
