"""Every entry point computes in flatguard's own settings and restores those of its caller."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import flatguard
from flatguard.environment.caller import own_process
from flatguard.environment.torch_state import OWN, TorchState

READ_ONLY = {"load_prompt_run", "load_run", "log_run", "threats_of"}
"""Entry points that compute nothing with torch."""
WITHIN = {
    "flatguard.evaluation": ("evaluate", "resume", "audit", "resolve"),
    "flatguard.runs.merging": ("merge",),
    "flatguard.threats": ("evaluate_union",),
    "flatguard.verification": ("verify", "verify_run"),
    "flatguard.prompts": ("evaluate_prompts", "resume_prompts"),
    "flatguard.targets.language_model": ("language_model",),
    "flatguard.targets.language_models": ("load_language_model",),
    "flatguard.checks.preflight.entry": ("preflight",),
    "flatguard.targets": ("load_target",),
    "flatguard.gate.gate": ("pass_through",),
    "flatguard.studies.reproduce": ("reproduce",),
    "flatguard.studies.stutz.measure": ("measure_checkpoint",),
    "flatguard.detection.fitting": ("fit_detector",),
    "flatguard.detection.experiment": ("run_experiment",),
    "flatguard.detection.detector": ("_forward",),
    "flatguard.execution.executors.worker": ("carry_out",),
}
"""What the command line, the plugin, workers and notebooks call."""


def _names(function: Callable[..., Any]) -> set[str]:
    """The names that a function's own code uses, and the decorator's that wraps it."""
    found: set[str] = set()
    while True:
        found |= {*function.__code__.co_names, *function.__code__.co_freevars}
        if "recreate_cm" in str(function.__code__.co_names):  # `contextlib.ContextDecorator`
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            found |= {cell.func.__name__ for cell in cells if hasattr(cell, "func")}
        if not hasattr(function, "__wrapped__"):
            return found
        function = function.__wrapped__


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in WITHIN.items() for name in names]
)
def test_an_entry_point_computes_as_a_new_process(module: str, name: str) -> None:
    used = _names(getattr(importlib.import_module(module), name))
    assert used & {"own_process", "caller_state_kept"}, f"{module}.{name} keeps the caller's state"


def test_every_public_function_is_listed() -> None:
    public = {name for name in flatguard.__all__ if callable(getattr(flatguard, name))}
    functions = {name for name in public if not isinstance(getattr(flatguard, name), type)}
    assert functions - READ_ONLY <= {name for names in WITHIN.values() for name in names}


def _draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.random()), random.random()


def test_the_state_is_a_new_process_s_and_the_caller_s_is_restored() -> None:
    with torch.no_grad(), np.errstate(all="raise"), torch.autocast("cpu"):
        torch.manual_seed(3), np.random.seed(3), random.seed(3)
        wanted = _draws()
        torch.manual_seed(3), np.random.seed(3), random.seed(3)
        before = TorchState.now()
        with own_process():
            assert TorchState.now() == OWN
            first = _draws()
            torch.set_default_dtype(torch.float64)
        assert TorchState.now() == before
        assert _draws() == wanted
        with own_process():
            assert _draws() == first
        with pytest.raises(KeyboardInterrupt), own_process():
            raise KeyboardInterrupt
        assert TorchState.now() == before
