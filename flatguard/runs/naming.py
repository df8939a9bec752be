"""The default folder of a run."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from flatguard.request import EvaluationRequest
from flatguard.targets.checkpoint import SUFFIXES

_REPORTS = Path("reports")


def default_folder(request: EvaluationRequest) -> Path:
    """`reports/20260102-030405-demo-apgd-ce`, with a number after it if the name is taken."""
    return named_folder(request.model, request.attack)


def named_folder(model: str, attack: str) -> Path:
    """The same for these names of a model and an attack."""
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path(model)
    short = path.stem if path.suffix in SUFFIXES else model
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{moment}-{short}-{attack}")
    candidates = [_REPORTS / name, *(_REPORTS / f"{name}-{i}" for i in range(2, 100))]
    return next(path for path in candidates if not path.exists())
