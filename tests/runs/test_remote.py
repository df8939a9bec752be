"""Run folders at an address: a real S3 server on the loopback, and fsspec's own memory."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.torch import save_file
from support.architectures import Hungry, tiny
from support.evidence_files import evidence_files

import flatguard
from flatguard.errors import AttackError, RunFolderError
from flatguard.execution.executors import Processes
from flatguard.execution.progress import Silent
from flatguard.runs import untrusted
from flatguard.runs.storage import open_storage

ROOT = Path(__file__).resolve().parents[2]


ARCH = f"{ROOT / 'tests' / 'support' / 'architectures.py'}:tiny"


@pytest.fixture
def asked(tmp_path: Path, tiny_data: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
    torch.manual_seed(0)
    save_file(tiny().state_dict(), tmp_path / "weights.safetensors")
    torch.save(tiny_data, tmp_path / "data.pt")
    return {
        "model": str(tmp_path / "weights.safetensors"), "attack": "torchattacks:PGD", "arch": ARCH,
        "data": str(tmp_path / "data.pt"), "eps": "2/255", "batch_size": 5, "threads": 1,
        "attack_args": {"steps": 3},
    }  # fmt: skip


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of moto's S3 server, which has an environment of its own; see `make s3`."""
    pytest.importorskip("s3fs", reason="no s3fs: pip install 'flatguard[s3]'")
    server = os.environ.get("FLATGUARD_S3_SERVER", str(ROOT / ".venv-s3" / "bin" / "moto_server"))
    if shutil.which(server) is None:
        pytest.skip(f"no S3 server at {server}; make s3 installs one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        try:
            _wait_for(port)
            import s3fs

            s3fs.S3FileSystem().mkdir("runs")
            yield "s3://runs"
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("moto's server does not answer")


def test_a_run_at_s3_is_the_run_on_a_disk(
    bucket: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    wanted = evidence_files(flatguard.evaluate(**asked, out=tmp_path / "disk").path)
    part = flatguard.evaluate(**asked, out=f"{bucket}/run", shard="2/3")
    assert str(part.storage) == f"{bucket}/run"
    with pytest.raises(RunFolderError, match="s3://runs/run exists already"):
        flatguard.evaluate(**asked, out=f"{bucket}/run")
    done = flatguard.resume(f"{bucket}/run", executor=Processes(1), allow_code=True)
    assert evidence_files(done.path) == wanted
    assert done.summary["run"] == f"{bucket}/run"
    again = flatguard.load_run(f"{bucket}/run")
    assert again.path != done.path
    assert evidence_files(again.path) == wanted
    assert flatguard.audit(again).sentence == done.summary["sentence"]
    assert (again.path / "report.html").is_file()
    merged = flatguard.merge([f"{bucket}/run"], f"{bucket}/merged")
    assert merged.complete


def test_somebody_elses_block_comes_last_at_an_address_too(
    bucket: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    import s3fs

    files, marks = s3fs.S3FileSystem(), "runs/shared/.staging"
    run = flatguard.evaluate(**asked, out=f"{bucket}/shared", shard="3/3")
    assert files.glob(f"{marks}/*") == []  # it took its own mark away
    files.pipe_file(f"{marks}/00000.elsewhere.1", b"")
    other = open_storage(f"{bucket}/shared")
    with run.storage.working_on(1):
        assert [other.is_begun(index) for index in range(3)] == [True, True, False]
    assert [other.is_begun(index) for index in range(3)] == [True, False, False]
    order = [2]  # of the first part

    class Follows(Silent):
        def advanced(self, samples: int) -> None:
            done = {index for index in range(3) if other.fetch_block(index)}
            order.extend(sorted(done - set(order)))

    done = flatguard.resume(run, allow_code=True, progress=Follows())
    assert order == [2, 1, 0]
    assert files.glob(f"{marks}/*") == [f"{marks}/00000.elsewhere.1"]  # nobody knows if it lives
    wanted = flatguard.evaluate(**asked, out=tmp_path / "disk")
    assert evidence_files(done.path) == evidence_files(wanted.path)


def test_a_bucket_that_does_not_exist_is_one_line(bucket: str, asked: dict[str, Any]) -> None:
    with pytest.raises(RunFolderError, match="s3://nowhere/run cannot be reached") as caught:
        flatguard.evaluate(**asked, out="s3://nowhere/run")
    assert "\n" not in str(caught.value)


class _Refuses(BaseHTTPRequestHandler):
    """A store that lets nobody write; where `reads` is false, nobody reads either."""

    protocol_version = "HTTP/1.1"
    reads = True

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        missing = self.reads and self.command in ("GET", "HEAD")
        code = b"NoSuchKey" if missing else b"AccessDenied"
        body = b"<Error><Code>" + code + b"</Code><Message>" + code + b"</Message></Error>"
        self.send_response(404 if missing else 403)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, *_: Any) -> None: ...


@pytest.mark.parametrize("reads", [True, False])
def test_a_bucket_that_refuses_is_one_line(
    reads: bool, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3fs = pytest.importorskip("s3fs", reason="no s3fs: pip install 'flatguard[s3]'")
    monkeypatch.setattr(_Refuses, "reads", reads)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(RunFolderError, match="s3://theirs/run cannot be reached") as caught:
            flatguard.evaluate(**asked, out="s3://theirs/run")
    finally:
        server.shutdown()
        s3fs.S3FileSystem.clear_instance_cache()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_memory_keeps_blocks_failures_and_nothing_half_written(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    import fsspec

    class Fails(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net, self.left = tiny(), 4

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.left -= x.requires_grad
            if self.left < 0:
                raise RuntimeError("out of luck")
            return self.net(x)

    data = torch.load(asked["data"], weights_only=True)
    kept = {name: asked[name] for name in ("attack", "eps", "batch_size", "threads", "attack_args")}
    address = f"memory://{tmp_path.name}/run"
    model = Fails().eval()
    with pytest.raises(AttackError, match=f"out of luck; the incomplete run, .* is in {address}"):
        flatguard.evaluate(model, **kept, data=data, out=address)
    left = flatguard.load_run(address)
    assert [block.plan.index for block in left.blocks] == [0]
    assert len(left.failed_trajectory(1)) == 5
    files = fsspec.filesystem("memory")
    folder = f"/{tmp_path.name}/run/evidence/blocks/00002-{'0' * 12}"
    files.pipe_file(f"{folder}/samples.parquet", b"half")  # its block.json never came
    model.left = 1000
    done = flatguard.resume(address, model=model, data=data)
    assert done.complete
    assert flatguard.load_run(address).failures == []
    assert not files.exists(f"/{tmp_path.name}/run/evidence/failed")


def test_an_address_without_its_package(asked: dict[str, Any]) -> None:
    with pytest.raises(RunFolderError, match=r"pip install 'flatguard\[gcs\]'"):
        flatguard.evaluate(**asked, out="gs://bucket/run")
    with pytest.raises(RunFolderError, match="nonsense"):
        flatguard.evaluate(**asked, out="nonsense://bucket/run")


@pytest.mark.parametrize("name", ["manifest.json", "blocks/00000-0/samples.parquet"])
def test_what_comes_from_a_store_is_bounded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more is fetched than a run folder's file may be, whatever the store has."""
    import fsspec

    monkeypatch.setattr(untrusted, "LARGEST_FILE", 2 * untrusted.MEBIBYTE)
    files, root = fsspec.filesystem("memory"), f"/{tmp_path.name}/big/evidence"
    files.pipe_file(f"{root}/manifest.json", b"{}")
    files.pipe_file(f"{root}/blocks/00000-0/block.json", b"{}")
    files.pipe_file(f"{root}/{name}", bytes(40 << 20))
    with pytest.raises(RunFolderError, match=rf"{name} is damaged: expected at most \d+ MiB, got"):
        flatguard.load_run(f"memory:/{root.removesuffix('/evidence')}")


class Requests:
    """What a store of fsspec's memory is asked for: calls, and names that it lists."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls, self.names, self.sent = 0, 0, 0
        for name in ("ls", "info", "pipe_file", "cat_file", "_rm", "rm_file", "_open"):
            if hasattr(MemoryFileSystem, name):
                self._count(patch, name)

    def _count(self, patch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(MemoryFileSystem, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            found = real(*args, **kwargs)
            self.calls += 1
            self.names += len(found) if name == "ls" else 0
            self.sent += name == "pipe_file"
            return found

        patch.setattr(MemoryFileSystem, name, counted)

    def taken(self) -> tuple[int, int, int]:
        """So many since the last time."""
        found = self.calls, self.names, self.sent
        self.calls = self.names = self.sent = 0
        return found


def test_a_store_is_read_for_new_files_only(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the blocks are twice the requests, and a push with nothing new sends nothing."""
    images = torch.rand(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.save((images, torch.arange(48) % 4), asked["data"])
    requests, found = Requests(monkeypatch), {}
    for count in (12, 24, 48):
        address = f"memory://{tmp_path.name}/of-{count}"
        run = flatguard.evaluate(
            **{**asked, "batch_size": 1}, n_examples=count, out=address, checks="none"
        )
        found[count] = requests.taken()
        run.storage.push()
        assert requests.taken() == (0, 0, 0)
    for number in range(3):
        twelve, more = (
            found[24][number] - found[12][number], found[48][number] - found[24][number]
        )  # fmt: skip
        assert more <= 2.1 * twelve, found


def test_another_workers_blocks_are_fetched_one_by_one(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"memory://{tmp_path.name}/shared"
    run = flatguard.evaluate(**asked, out=address, shard="1/3")
    other = open_storage(address)
    other.pull(blocks=False)
    requests = Requests(monkeypatch)
    assert [other.fetch_block(index) for index in range(3)] == [True, False, False]
    assert requests.taken()[1] <= 10
    assert [folder.name for folder in (other.path / "evidence" / "blocks").iterdir()] == [
        folder.name for folder in (run.path / "evidence" / "blocks").iterdir()
    ]
    done = flatguard.resume(run, allow_code=True)
    assert done.complete


@pytest.mark.parametrize("name", ["../../../outside", "00001-0123456789ab", "x" * 200])
def test_a_mark_that_names_something_else_is_no_block(name: str, tmp_path: Path) -> None:
    import fsspec

    address = f"memory://{tmp_path.name}/run"
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/run/.committed/00000", name.encode())
    place = open_storage(address)
    assert not place.fetch_block(0)
    assert not place.path.exists()


def test_a_run_with_smaller_batches_is_whole_at_an_address_too(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    kept = {name: asked[name] for name in ("attack", "eps", "threads", "attack_args")}
    data, address = torch.load(asked["data"], weights_only=True), f"memory://{tmp_path.name}/run"
    flatguard.evaluate(Hungry().eval(), **kept, data=data, batch_size=12, out=address)
    again = flatguard.load_run(address)
    assert again.complete
    assert again.request.batch_size == 3
