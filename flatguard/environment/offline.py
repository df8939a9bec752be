"""`FLATGUARD_OFFLINE=1` forbids the network, to flatguard and to all that it calls in its process.

Python asks its audit hooks before a socket connects or a name is looked up; one of ours answers.
It is there only where the variable is set. This machine itself is not the network.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any

from flatguard.errors import EnvironmentProblem

_VARIABLE = "FLATGUARD_OFFLINE"
FORBIDDEN = f"{_VARIABLE} forbids the network"
_LOOKED_UP = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
_SENT = ("socket.connect", "socket.sendto", "socket.sendmsg")
_kept: list[bool] = []
_refused: list[str] = []


class NetworkForbidden(EnvironmentProblem, OSError):
    """Something asked for the network; libraries fall back on their caches at an `OSError`."""


def is_offline() -> bool:
    """Whether the variable is set to anything but 0."""
    return os.environ.get(_VARIABLE, "") not in ("", "0")


def keep_offline() -> None:
    """From here on, no socket of this process leaves the machine while the variable is set."""
    if is_offline() and not _kept:
        _kept.append(True)
        sys.addaudithook(_answer)


def asked_for() -> str:
    """What was refused last, to stand behind an error that may come of it; or nothing."""
    return f"; {FORBIDDEN}, and {_refused[-1]} was asked for" if _refused else ""


def _answer(event: str, arguments: tuple[Any, ...]) -> None:
    if not event.startswith("socket.") or not is_offline():
        return
    if event in _LOOKED_UP:
        host = arguments[0]
    elif event in _SENT:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) and address else None
    else:
        return
    if not _is_here(host):
        _refused.append(_named(host))
        raise NetworkForbidden(
            f"{FORBIDDEN}, and {_named(host)} was asked for; put the file where it is looked for, "
            f"or unset {_VARIABLE}"
        )


def _is_here(host: Any) -> bool:
    """Whether a host is this machine: no host at all, a path of a local socket, or loopback."""
    if host is None or not isinstance(host, (str, bytes, bytearray)):
        return True
    name = _named(host).lower().rstrip(".")
    if name in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _named(host: str | bytes | bytearray) -> str:
    return host if isinstance(host, str) else bytes(host).decode("ascii", "replace")
