"""Limits on network access: a reachability test, caches only, and socket timeouts."""

from __future__ import annotations

import io
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import NoReturn

from flatguard.environment.offline import FORBIDDEN, is_offline

HUGGING_FACE, PYTORCH_DOWNLOADS = "huggingface.co", "download.pytorch.org"
_CONNECT_SECONDS = 8.0


def unreachable(host: str) -> str | None:
    """The reason why `host` cannot be reached within 8 s, or None if it can.

    `FLATGUARD_OFFLINE=1` forbids the attempt. Behind a proxy, the proxy is tested.
    """
    if is_offline():
        return FORBIDDEN
    address = _address(host)
    answer: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=_CONNECT_SECONDS).close()
            answer.append(None)
        except OSError as error:
            answer.append(f"{host} cannot be reached ({error})")

    # Name look-ups ignore timeouts, so they run in a thread that is not waited for.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_SECONDS)
    return answer[0] if answer else f"{host} did not answer within {_CONNECT_SECONDS:.0f} s"


def _address(host: str) -> tuple[str, int]:
    proxy = urllib.request.getproxies().get("https")
    if proxy and not urllib.request.proxy_bypass(host):
        parsed = urllib.parse.urlparse(proxy)
        if parsed.hostname:
            return parsed.hostname, parsed.port or 443
    return host, 443


@contextmanager
def cached_only(why: str | None) -> Iterator[None]:
    """If `why` is given, hubs can read their caches only: no host name resolves.

    Hubs print what they are about to download; that output is discarded.
    """
    if why is None:
        yield
        return
    import huggingface_hub.constants

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(why)

    resolve, offline = socket.getaddrinfo, huggingface_hub.constants.HF_HUB_OFFLINE
    socket.getaddrinfo = refuse
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.getaddrinfo = resolve
        huggingface_hub.constants.HF_HUB_OFFLINE = offline


@contextmanager
def bounded_sockets(seconds: float = _CONNECT_SECONDS) -> Iterator[None]:
    """New sockets time out after `seconds` without an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
