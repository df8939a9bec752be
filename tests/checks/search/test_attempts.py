"""Attempts: what is confirmed, counted and kept."""

import torch
from support.check_contexts import linear
from torch import Tensor

from flatguard.checks.context import Rows
from flatguard.checks.search.attempts import Attempt, AttemptTable


def test_an_attempt_is_a_row_for_each_sample_with_its_price() -> None:
    context, _ = linear("Linf")
    rows = next(context.rows(context.survivors))

    def method(here: Rows) -> tuple[Tensor, Tensor]:
        context.logits(here.images)
        return here.images + 0.125, here.sample % 2 == 0

    table = AttemptTable()
    table.add(context, Attempt("try", "loss", method), rows)
    found = table.evidence({"steps": 1})
    attempts = found.tables["attempts"]
    assert attempts["sample"].tolist() == context.survivors.tolist()
    assert (attempts["fooled"] == (attempts["sample"] % 2 == 0)).all()
    assert set(attempts["family"]) == {"loss"}
    assert set(attempts["forwards"]) == {1.0}
    assert found.facts == {"steps": 1}
    assert set(found.examples) == set(attempts.loc[attempts["fooled"], "sample"])
    first = int(rows.sample[rows.sample % 2 == 0][0])
    clean = rows.images[rows.sample == first][0]
    assert torch.equal(found.examples[first], clean + 0.125)


def test_the_first_example_of_a_sample_is_kept() -> None:
    context, _ = linear("Linf")
    rows = next(context.rows(context.survivors))[:1]
    table = AttemptTable()
    for value in (0.25, 0.75):
        image = torch.full_like(rows.images, value)
        attempt = Attempt("try", "loss", lambda _, image=image: (image, torch.tensor([True])))
        table.add(context, attempt, rows)
    (kept,) = table.evidence().examples.values()
    assert bool((kept == 0.25).all())


def test_a_random_attempt_repeats_itself() -> None:
    context, _ = linear("Linf")
    rows = next(context.rows(context.survivors))
    drawn: list[Tensor] = []

    def method(here: Rows) -> tuple[Tensor, Tensor]:
        drawn.append(torch.rand(3))
        return here.images, torch.zeros(len(here), dtype=torch.bool)

    for name in ("one", "one", "other"):
        AttemptTable().add(context, Attempt(name, "loss", method), rows)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_no_attempt_is_an_empty_table() -> None:
    table = AttemptTable().evidence().tables["attempts"]
    assert list(table.columns) == [
        "sample",
        "attempt",
        "family",
        "fooled",
        "wrong",
        "draws",
    ]
    assert len(table) == 0
