"""Folders that end in the host and process that works in them: what the dead left is found."""

from __future__ import annotations

import glob
import os
import shutil
import socket
from pathlib import Path

from flatguard.environment.system import is_alive


def ending() -> str:
    """What a folder's name ends in that belongs to this process."""
    return f".{_host()}.{os.getpid()}"


def sweep_dead(storage: Path, prefix: str = "") -> None:
    """Remove the folders of this host's processes that are no more; links are let be."""
    for folder in storage.glob(f"{glob.escape(prefix)}*.{glob.escape(_host())}.*"):
        process = folder.name.rpartition(".")[2]
        if process.isdecimal() and not is_alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    return socket.gethostname().replace(".", "-")
