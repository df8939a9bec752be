"""Studies as data, and the subject that a study is run on."""

import pytest
import torch
from support.studies import Plain, subject_of
from torch import nn

from flatguard.errors import DataError, UsageError
from flatguard.studies import STUDIES, find_study
from flatguard.studies.study import Protocol
from flatguard.studies.walter.valley import valley_of


def test_a_study_names_its_function_and_its_attack() -> None:
    study = find_study("walter-fig3")
    assert study.run is valley_of
    assert find_study("walter-fig1").run is None
    assert str(study.protocol).startswith("torchattacks:PGD within Linf 8/255 (steps=10, alpha=")
    assert study.protocol.args["alpha"] == 2 / 255
    assert str(Protocol()) == "torchattacks:PGD within Linf 8/255"
    assert {study.paper for study in STUDIES} == {"walter2026", "stutz2021"}


def test_blocks_are_the_batch_in_parts(plain_digits: Plain) -> None:
    subject = subject_of("walter-fig3", plain_digits, 40, batch_size=16)
    parts = list(subject.blocks())
    assert [start for start, _ in parts] == [0, 16, 32]
    whole = subject.batch()
    assert len(whole) == subject.count == 40
    torch.testing.assert_close(torch.cat([batch.images for _, batch in parts]), whole.images)
    assert torch.cat([batch.labels for _, batch in parts]).tolist() == whole.labels.tolist()


def test_seeds_differ_by_part_and_block(plain_digits: Plain) -> None:
    subject = subject_of("walter-fig3", plain_digits, 4)
    assert len({subject.seed(part, block) for part in ("a", "b") for block in (0, 1)}) == 4
    assert subject.seed("a") == subject_of("walter-fig2", plain_digits, 8).seed("a")


def test_what_a_study_cannot_use_is_refused(plain_digits: Plain) -> None:
    model, (images, labels) = plain_digits
    headless = nn.Sequential(model, nn.Tanh()).eval()
    with pytest.raises(UsageError, match="needs the model's final linear layer"):
        subject_of("walter-fig3", (headless, (images, labels)), 4).head()
    with pytest.raises(DataError, match="label"):
        subject_of("walter-fig3", (model, (images, labels + 10)), 4).batch()
