"""A real Ray cluster of two nodes on this machine; one of them is killed in mid-run."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny
from support.evidence_files import evidence_files

import flatguard
from flatguard.errors import AttackError, EnvironmentProblem
from flatguard.execution.compute_budget import load_spent
from flatguard.execution.executors import Ray
from flatguard.execution.progress import Silent
from flatguard.runs.check_evidence import load_probes

ray = pytest.importorskip("ray", reason="no Ray: pip install 'flatguard[ray]'")
ARCH = f"{Path(__file__).parents[2] / 'support' / 'architectures.py'}:tiny"
MEMORY = 80_000_000


BROKEN = """
from torch import nn

class Broken(nn.Sequential):
    def forward(self, x):
        if x.requires_grad:
            raise RuntimeError("no gradient today")
        return super().forward(x)

def broken():
    return Broken(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))
"""


def alive() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def started() -> Any:
    """A cluster of one node. Ray gives it 30 seconds to start, which are too few under load."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
    for tries_left in (2, 1, 0):
        try:
            return Cluster(initialize_head=True, head_node_args=small)
        except Exception as error:
            if not tries_left or "timed out during startup" not in str(error):
                raise
    raise AssertionError


@pytest.fixture(scope="class")
def cluster() -> Iterator[Any]:
    """Its start takes longer than all tests on it. A node that a test adds is removed by it."""
    found = started()
    ray.init(address=found.address, log_to_driver=False, logging_level="error")
    yield found
    ray.shutdown()
    found.shutdown()


class Killer(Silent):
    """Kills a node when the first block is done, while the next ones are attacked."""

    def __init__(self, cluster: Any, node: Any):
        self.cluster, self.node = cluster, node

    def advanced(self, samples: int) -> None:
        if self.node is not None and self.attacking:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None

    def stage(self, name: str, total: int, calls_each: int | None = None) -> None:
        self.attacking = name.startswith("attack")


def asked(folder: Path, count: int) -> dict[str, Any]:
    """A run on so many images, in blocks of four; weights and images are files."""
    torch.manual_seed(0)
    save_file(tiny().state_dict(), folder / "weights.safetensors")
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    torch.save((images, torch.arange(count) % 4), folder / "data.pt")
    return {
        "model": str(folder / "weights.safetensors"), "attack": "torchattacks:PGD", "arch": ARCH,
        "data": str(folder / "data.pt"), "eps": "2/255", "batch_size": 4, "threads": 1,
    }  # fmt: skip


class TestOnACluster:
    def test_a_cluster_that_loses_a_node_gives_the_same_bytes(
        self, cluster: Any, tmp_path: Path
    ) -> None:
        options = asked(tmp_path, 24) | {"attack_args": {"steps": 200}, "checks": "none"}
        second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        cluster.wait_for_nodes()
        assert alive() == 2
        killer = Killer(cluster, second)
        found = flatguard.evaluate(**options, out=tmp_path / "ray", executor=Ray(), progress=killer)
        assert killer.node is None
        deadline = time.monotonic() + 30
        while alive() > 1 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert alive() == 1
        assert found.complete
        whole = flatguard.evaluate(**options, out=tmp_path / "whole")
        assert evidence_files(found.path) == evidence_files(whole.path)

    def test_checks_and_limits_on_a_cluster(self, cluster: Any, tmp_path: Path) -> None:
        limit = 2 * 4 * 5 + 10
        options = asked(tmp_path, 12) | {
            "attack_args": {"steps": 5}, "checks": "fast", "max_forwards": limit,
        }  # fmt: skip
        found = flatguard.evaluate(**options, out=tmp_path / "ray", executor=Ray())
        assert [block.plan.index for block in found.blocks] == [0, 1]
        assert 40 < load_spent(found) <= 50 + 4
        options["max_forwards"] = None
        run = flatguard.evaluate(**options, out=tmp_path / "checked", executor=Ray())
        whole = flatguard.evaluate(**options, out=tmp_path / "whole")
        assert load_probes(run)["twins"].ran
        assert evidence_files(run.path) == evidence_files(whole.path)

    def test_what_a_worker_raises_is_one_line_here(self, cluster: Any, tmp_path: Path) -> None:
        (tmp_path / "broken.py").write_text(BROKEN)
        save_file(tiny().state_dict(), tmp_path / "weights.safetensors")
        torch.save((torch.rand(4, 3, 8, 8), torch.arange(4)), tmp_path / "data.pt")
        with pytest.raises(AttackError, match="failed: RuntimeError: no gradient today"):
            flatguard.evaluate(
                str(tmp_path / "weights.safetensors"), "torchattacks:PGD", eps="1/255",
                arch=f"{tmp_path / 'broken.py'}:broken", data=str(tmp_path / "data.pt"),
                executor=Ray(), out=tmp_path / "run",
            )  # fmt: skip


def test_an_address_where_no_cluster_is(
    tiny_data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    options = {"data": tiny_data, "eps": "1/255", "checks": "none", "out": tmp_path / "run"}
    model, began = tiny().eval(), time.monotonic()
    for address in (nobody, f"ray://{nobody}", "127.0.0.1:99999"):
        with pytest.raises(EnvironmentProblem, match=f"no Ray cluster answers at {address} ") as no:
            flatguard.evaluate(model, "torchattacks:FGSM", executor=Ray(address), **options)
        assert "\n" not in str(no.value)
        assert not (tmp_path / "run").exists()
    assert time.monotonic() - began < 60
    done = flatguard.evaluate(model, "torchattacks:FGSM", **options)
    again = flatguard.resume(done, model=model, data=tiny_data, executor=Ray(nobody))
    assert again.complete  # with nothing left to attack, nobody is options
