"""Where a run lands that nobody gave a folder."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from flatguard.request import EvaluationRequest
from flatguard.targets.checkpoint import SUFFIXES

REPORTS = Path("reports")


def default_folder(request: EvaluationRequest) -> Path:
    """`reports/20260102-030405-demo-apgd-ce`, with a number behind it where that is taken."""
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path(request.model)
    model = path.stem if path.suffix in SUFFIXES else request.model
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{moment}-{model}-{request.attack}")
    candidates = [REPORTS / name, *(REPORTS / f"{name}-{i}" for i in range(2, 100))]
    return next(path for path in candidates if not path.exists())
