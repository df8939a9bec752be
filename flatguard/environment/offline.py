"""`FLATGUARD_OFFLINE=1` forbids the network to flatguard and everything it calls in its process.

Python calls its audit hooks before a socket connects or a host name is looked up. flatguard adds
a hook that raises, if the variable is set. Connections within this machine stay allowed.
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
    """The network was requested. An `OSError` makes libraries fall back on their caches."""


def is_offline() -> bool:
    """Whether the variable is set to anything but 0."""
    return os.environ.get(_VARIABLE, "") not in ("", "0")


def keep_offline() -> None:
    """Install the hook: while the variable is set, no socket of this process leaves the machine."""
    if is_offline() and not _kept:
        _kept.append(True)
        sys.addaudithook(_refuse)


def last_refusal() -> str:
    """The host that was refused last, as a suffix for errors that it may have caused, or ""."""
    return f"; {FORBIDDEN}, and {_refused[-1]} was requested" if _refused else ""


def refusals() -> int:
    """How many requests were refused so far."""
    return len(_refused)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
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
            f"{FORBIDDEN}, and {_named(host)} was requested; put the file into the folder or cache "
            f"where it is expected, or unset {_VARIABLE}"
        )


def _is_here(host: Any) -> bool:
    """Whether a host is this machine: no host, the path of a local socket, or loopback."""
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
