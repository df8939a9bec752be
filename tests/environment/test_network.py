"""The network: tested within seconds, closed to hubs on request, never waited for."""

import socket
import sys
from collections.abc import Iterator

import huggingface_hub.constants
import pytest

from flatguard.environment import network
from flatguard.environment.network import bounded_sockets, cached_only, unreachable


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLATGUARD_OFFLINE", raising=False)
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_offline_forbids_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLATGUARD_OFFLINE", "1")
    assert "FLATGUARD_OFFLINE forbids the network" in str(unreachable("127.0.0.1"))


@pytest.mark.usefixtures("online")
def test_a_proxy_is_tested_instead_of_the_host(
    server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server[1]}")
    assert unreachable("host.invalid") is None


@pytest.mark.usefixtures("online")
def test_a_host_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    assert str(unreachable("host.invalid")).startswith("host.invalid cannot be reached (")


@pytest.mark.usefixtures("online")
def test_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setattr(network, "_CONNECT_SECONDS", 0.0)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert unreachable("host.invalid") is not None


def test_hubs_get_their_caches_only(capsys: pytest.CaptureFixture[str]) -> None:
    resolve, offline = socket.getaddrinfo, huggingface_hub.constants.HF_HUB_OFFLINE
    with cached_only("no network"):
        print("Downloading")
        print("Downloading", file=sys.stderr)
        assert huggingface_hub.constants.HF_HUB_OFFLINE is True
        with pytest.raises(OSError, match="no network"):
            socket.getaddrinfo("localhost", 80)
    assert socket.getaddrinfo is resolve
    assert huggingface_hub.constants.HF_HUB_OFFLINE is offline
    with cached_only(None):
        assert socket.getaddrinfo is resolve
    assert "Downloading" not in "".join(capsys.readouterr())


def test_new_sockets_time_out() -> None:
    before = socket.getdefaulttimeout()
    with bounded_sockets(2.5), socket.socket() as inside:
        assert inside.gettimeout() == 2.5
    assert socket.getdefaulttimeout() == before
