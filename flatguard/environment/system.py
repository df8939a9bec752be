"""Differences between operating systems: processors, processes, durable writes, command lines.

Each function chooses its branch when it is called, so that all branches are testable everywhere.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path

_STILL_ACTIVE, _QUERY, _INVALID_PARAMETER = 259, 0x1000, 87
"""Windows: the exit code of a running process, the right to query it, and "no such process"."""

_TRIES, _PAUSE = 20, 0.05
"""Windows cannot replace a file while another process, such as a virus scanner, has it open."""


def is_windows() -> bool:
    """Whether this is Windows."""
    return os.name == "nt"


def processors() -> int:
    """How many processors this process may use; if the system does not tell, how many exist."""
    for name in ("process_cpu_count", "sched_getaffinity"):  # Python 3.13 has the first everywhere
        ask = getattr(os, name, None)
        if ask is not None:
            found = ask() if name == "process_cpu_count" else len(ask(0))
            return int(found or 1)
    return os.cpu_count() or 1


def is_alive(process: int) -> bool:
    """Whether a process of this machine is running; does not disturb it."""
    if is_windows():
        return _is_alive_on_windows(process)
    try:
        os.kill(process, 0)  # on Windows this would end it
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_alive_on_windows(process: int) -> bool:
    import ctypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    handle = kernel.OpenProcess(_QUERY, False, process)
    if not handle:
        # Access to another user's process is denied, which means that it runs.
        missing: bool = ctypes.get_last_error() == _INVALID_PARAMETER  # type: ignore[attr-defined,unused-ignore]
        return not missing
    code = ctypes.c_ulong()
    try:
        known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    finally:
        kernel.CloseHandle(handle)
    return not known or code.value == _STILL_ACTIVE


def sync(path: Path) -> None:
    """Wait until a file, or the list of names of a folder, is written to the disk.

    Windows syncs only files that are open for writing, and cannot sync folders.
    """
    if is_windows() and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if is_windows() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(old: Path, new: Path) -> None:
    """Rename a file or a folder; an existing file of the new name is replaced.

    On Windows, retries for one second while another process has the file open.
    """
    for _ in range(_TRIES if is_windows() else 0):
        try:
            old.replace(new)
        except PermissionError:
            time.sleep(_PAUSE)
        else:
            return
    old.replace(new)


def quoted(*words: object) -> str:
    """A command line, quoted for this system's shell."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if is_windows() else shlex.join(texts)


def is_link(status: os.stat_result) -> bool:
    """Whether a path is a link or a junction of Windows."""
    import stat

    junction = getattr(status, "st_reparse_tag", 0) == 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT
    return junction or stat.S_ISLNK(status.st_mode)
