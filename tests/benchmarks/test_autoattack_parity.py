"""The comparison with AutoAttack: its networks, what it counts, and what it keeps."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from benchmarks.autoattack_parity import __main__ as parity
from benchmarks.autoattack_parity.measure import by_autoattack, by_cascade, by_checks
from benchmarks.autoattack_parity.networks import CASES, Case, MeanSparse, SparseDigits
from benchmarks.masking_zoo.digits import DigitsNet, digits
from benchmarks.masking_zoo.networks import Network


def flat() -> Network:
    """A linear classifier of ten digits, which every attack on the margin solves."""
    images, labels = digits()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimiser.step()
    return Network(net.eval(), images, labels, 0.02)


def test_both_leave_the_same_samples_on_a_linear_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyautoattack import AutoAttack

    set_up = AutoAttack._set_version

    def short(self: AutoAttack, version: str = "standard") -> None:
        set_up(self, version)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 5
        self.square.n_queries = 5

    monkeypatch.setattr(AutoAttack, "_set_version", short)
    case = Case(flat, 12)
    attacked, checked, cascade = by_autoattack(case), by_checks(case, "fast"), by_cascade(case)
    assert attacked.right == checked.right == cascade.right
    assert 12 < cascade.forwards < attacked.forwards
    assert 12 < cascade.backwards < attacked.backwards
    assert 0 < len(checked.right) <= checked.reported <= checked.clean <= 12
    assert attacked.forwards > 12
    assert checked.forwards > 0


def test_mean_centred_sparsity_replaces_what_is_near_the_mean() -> None:
    seen = torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1
    stage = MeanSparse(seen, 0.5)
    x = torch.tensor([0.9, 1.5, 5.0]).view(3, 1, 1, 1).expand(3, 3, 1, 1).clone()
    x.requires_grad_(True)
    found = stage(x)
    assert torch.allclose(found[:2], stage.mean.expand(2, 3, 1, 1))
    assert torch.equal(found[2], x[2])
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.flatten(1).sum(dim=1).tolist() == [0.0, 0.0, 3.0]


def test_sparse_digits_sparsify_behind_every_relu() -> None:
    torch.manual_seed(0)
    net, (images, _) = DigitsNet(), digits()
    assert torch.allclose(SparseDigits(net, images[:50], 0.0)(images[:5]), net(images[:5]))
    assert not torch.allclose(SparseDigits(net, images[:50], 0.7)(images[:5]), net(images[:5]))


def test_what_was_measured_is_kept_and_the_gap_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = {
        "clean": 290, "reported": 195, "right": list(range(193)), "forwards": 119_266,
        "verdict": "consistent", "mechanism": None, "seconds": 1.0,
    }  # fmt: skip
    attacked = {"right": list(range(192)), "forwards": 1_512_516, "seconds": 1.0}
    row = {"network": "digits_robust", "images": 300, "standard": checked, "autoattack": attacked}
    file = tmp_path / "digits_robust.json"
    monkeypatch.setattr(sys, "argv", ["parity", "--only", "digits_robust", "--out", str(tmp_path)])
    file.write_text(json.dumps(row))
    assert parity.main() == 0
    line = "| digits_robust | 300 | 65.0% | 64.3% | 64.0% | consistent | 119,266 | 1,512,516 |"
    assert line in capsys.readouterr().out
    file.write_text(json.dumps(row | {"autoattack": attacked | {"right": list(range(191))}}))
    assert parity.main() == 1


def test_the_cascade_is_compared_pass_by_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"right": [1, 2], "forwards": 300, "backwards": 200, "seconds": 1.0, "warned": True}
    attacked = {"right": [1], "forwards": 30_000, "backwards": 20_000, "seconds": 50.0}
    row = {"network": "digits_robust", "images": 300, "cascade": found, "autoattack": attacked}
    (tmp_path / "digits_robust.json").write_text(json.dumps(row))
    given = ["parity", "--cascade", "--only", "digits_robust", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", given)
    assert parity.main() == 0
    line = "| digits_robust | 300 | 0.7% | 0.3% | yes | 500 | 1.00% | 1.0 | 2.0% |"
    assert line in capsys.readouterr().out


def test_all_but_the_sparse_networks_are_honest() -> None:
    assert sum(case.is_honest for case in CASES.values()) == 11
    assert all(case.is_honest != name.startswith("sparse") for name, case in CASES.items())
    assert all(100 <= case.count <= 300 for case in CASES.values())
    assert all(100 <= case.count <= 300 for case in CASES.values())
