"""The plan of a run: its blocks, its data and its manifest."""

from pathlib import Path

import pytest
import torch
from support.architectures import tiny

from flatguard.data.arrays import ArrayDataset
from flatguard.errors import DataError, UsageError
from flatguard.execution.context import EvaluationContext, resolve
from flatguard.execution.plan import plan_run
from flatguard.execution.progress import Silent
from flatguard.request import derive_seed, make_request
from flatguard.runs.run import load_run
from flatguard.runs.storage import open_storage
from flatguard.targets import make_target

Images = tuple[torch.Tensor, torch.Tensor]


def context(data: Images, **fields: object) -> EvaluationContext:
    request = make_request(
        model="tiny", attack="torchattacks:FGSM", eps="1/255", batch_size=5, seed=3, **fields
    )
    return resolve(request, make_target(tiny(), "tiny", "a test"), ArrayDataset(*data, "random"))


def test_the_blocks_cover_all_samples_and_have_their_own_seeds(
    tiny_data: Images, tmp_path: Path
) -> None:
    run = plan_run(context(tiny_data), open_storage(tmp_path / "run"), ["typed"], Silent())
    kept = load_run(tmp_path / "run")
    assert kept.manifest == run.manifest
    assert [(plan.start, plan.stop) for plan in kept.manifest.blocks] == [(0, 5), (5, 10), (10, 12)]
    assert [plan.seed for plan in kept.manifest.blocks] == [
        derive_seed(3, block, "torchattacks:FGSM") for block in range(3)
    ]
    assert kept.manifest.command == ("typed",)
    assert (kept.manifest.data.size, len(set(kept.manifest.data.blocks))) == (12, 3)
    assert kept.blocks == []


def test_nothing_is_written_where_the_data_do_not_fit(tiny_data: Images, tmp_path: Path) -> None:
    images, labels = tiny_data
    wrong = context((images, labels + 1))  # four classes, and the label 4
    with pytest.raises(DataError, match="label"):
        plan_run(wrong, open_storage(tmp_path / "run"), (), Silent())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_where_layers_cannot_be_measured(
    tiny_data: Images, tmp_path: Path
) -> None:
    headless = torch.nn.Sequential(tiny(), torch.nn.Softmax(dim=1))
    request = make_request(
        model="headless", attack="torchattacks:FGSM", eps="1/255", batch_size=5, layers=1
    )
    target = make_target(headless, "headless", "a test")
    resolved = resolve(request, target, ArrayDataset(*tiny_data, "random"))
    with pytest.raises(UsageError, match="--layers needs the model's head"):
        plan_run(resolved, open_storage(tmp_path / "run"), (), Silent())
    assert list(tmp_path.iterdir()) == []
