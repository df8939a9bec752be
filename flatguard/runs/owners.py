"""Temporary folders whose names end in host and process, so that leftovers can be removed."""

from __future__ import annotations

import glob
import os
import shutil
import socket
from pathlib import Path

from flatguard.environment.system import is_alive


def ending() -> str:
    """The end of the name of this process's folders."""
    return f".{_host()}.{os.getpid()}"


def sweep_dead(storage: Path, prefix: str = "") -> None:
    """Remove the folders of this host's processes that have ended; links are not followed."""
    for folder in storage.glob(f"{glob.escape(prefix)}*.{glob.escape(_host())}.*"):
        process = folder.name.rpartition(".")[2]
        if process.isdecimal() and not is_alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    return socket.gethostname().replace(".", "-")
