"""The path of an attack: the recorder sees the same, and blocks make the same path."""

import torch
from support.studies import Plain, subject_of
from torch import nn

import flatguard
from flatguard.studies.walter.path import Path, walk_all


def test_the_path_is_what_the_recorder_records(plain_digits: Plain) -> None:
    """Two ways to look at one attack: hooks that keep logits, and the recorder's table."""
    subject = subject_of("walter-fig3", plain_digits, 12)
    path = walk_all(subject)
    batch = subject.batch()
    recorder = flatguard.Recorder(subject.model, batch.images, batch.labels)
    with recorder:
        subject.context.attack.perturb(subject.model, batch.images, batch.labels, 0, recorder)
    table = recorder.trajectory().sort_values(["call", "sample"])
    steps = len(path.logits) - 1
    assert len(table) == 12 * steps
    for column, ours in (
        ("loss", path.loss()), ("log_kappa", path.log_kappa(subject.head())), ("l2", path.l2),
        ("linf", path.linf),
    ):  # fmt: skip
        theirs = torch.from_numpy(table[column].to_numpy().copy()).double().view(steps, 12)
        torch.testing.assert_close(ours[:-1], theirs, rtol=2e-5, atol=1e-6)
    assert bool(path.inside.all())


def test_blocks_make_the_same_path_as_one_batch(plain_digits: Plain) -> None:
    subject = subject_of("walter-fig2", plain_digits, 40, batch_size=16)
    whole, first = walk_all(subject), walk_all(subject_of("walter-fig2", plain_digits, 16))
    torch.testing.assert_close(whole[torch.arange(16)].logits, first.logits)
    assert Path.joined([first, first]).labels.tolist() == first.labels.tolist() * 2


def test_scales_on_the_path_are_scaled_models(plain_digits: Plain) -> None:
    """Logits times s, by the path, and by a copy of the model whose head is scaled."""
    subject = subject_of("walter-fig2", plain_digits, 8)
    path, batch = walk_all(subject), subject.batch()
    scaled = flatguard.targets.prepare(subject.context.target, batch.images, logit_scale=5.0)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(
            scaled.model(batch.images).double(), batch.labels, reduction="none"
        )
    torch.testing.assert_close(path.loss(5.0)[0], loss, rtol=1e-4, atol=1e-9)
