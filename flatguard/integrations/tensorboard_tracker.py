"""TensorBoard: an event file in the run's folder; `tensorboard --logdir reports` shows all runs.

Numbers are scalars, the request is in the HParams plugin, and the report's summary is a text.
TensorBoard knows no active run and keeps no files, so the report stays beside the event file.
"""

from __future__ import annotations

import shutil

from flatguard.environment.requirements import needed
from flatguard.errors import TrackerError
from flatguard.integrations.logged_run import PREFIX, LoggedRun

FOLDER = "tensorboard"


def log(logged: LoggedRun) -> str:
    """Log a run in place of an earlier time; the folder of the event file."""
    if logged.folder is None:
        raise TrackerError("its event file is kept in a run folder on a disk, not at an address")
    with needed("tensorboard", "tensorboard", "--log-to tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    folder = logged.folder / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    names = {name: f"{PREFIX}/{name}" for name in logged.metrics}
    with SummaryWriter(log_dir=str(folder)) as writer:
        writer.add_hparams(
            {f"{PREFIX}/{name}": value for name, value in logged.parameters.items()},
            {names[name]: value for name, value in logged.metrics.items()},
            run_name=".",  # in this folder: by default it makes one of its own
        )
        for name, value in logged.tags.items():
            writer.add_text(f"{PREFIX}/{name}", value)
        writer.add_text(f"{PREFIX}/report", logged.markdown)
    return str(folder)
