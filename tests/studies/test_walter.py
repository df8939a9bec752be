"""Every study of Walter et al. on a small network: whole, reproducible, right where it is known."""

import json
import math

import pytest
import torch
from support.digits import digits_net
from torch import Tensor, nn

import flatguard
from flatguard.errors import UsageError
from flatguard.execution.progress import Silent
from flatguard.studies import STUDIES, find_study
from flatguard.studies.claim import Claim
from flatguard.studies.reproduce import Result, reproduce
from flatguard.studies.study import Subject
from flatguard.studies.walter.path import Path, walk_all

Plain = tuple[nn.Module, tuple[Tensor, Tensor]]
RUN = [s for s in STUDIES if s.name.startswith("walter") and s.status == "runs-here"]


def claim(result: Result, name: str) -> Claim:
    return next(found for found in result.claims if found.name == name)


@pytest.fixture(scope="module")
def results(plain_digits: Plain) -> dict[str, Result]:
    """All of them once; the layers' estimates take the most time, so they get two samples."""
    model, data = plain_digits
    found = {}
    for study in RUN:
        models = {"none": [], "one": [model], "many": [model, digits_net().eval()]}[study.models]
        count = 2 if study.name == "walter-fig14" else 40
        found[study.name] = reproduce(study.name, models, data=data, n_examples=count)
    return found


@pytest.mark.parametrize("study", RUN, ids=lambda study: study.name)
def test_every_study_gives_whole_claims(study, results: dict[str, Result]) -> None:
    result = results[study.name]
    names = [found.name for found in result.claims]
    assert names
    assert len(set(names)) == len(names)
    text = json.dumps(result.model_dump(mode="json"), allow_nan=False)
    assert Result.model_validate_json(text) == result
    for found in result.claims:
        assert (found.ours is None) == (found.verdict == "not-measured"), found.name
        assert found.rule
        assert not found.rule.endswith(".")
        if found.interval is not None and found.ours is not None:
            low, high = found.interval
            assert low <= found.ours <= high, found.name
        if found.verdict == "refuted":
            assert (
                "ounterexample" in found.note
                or found.samples
                or "Errors in print" in found.note
                or "1/p_j" in found.note
            ), found.name


def test_a_study_is_the_same_twice(plain_digits: Plain) -> None:
    model, data = plain_digits
    first, second = (
        reproduce("walter-prop9", [model], data=data, n_examples=10, seed=3) for _ in range(2)
    )
    assert first.claims == second.claims
    assert first.figures == second.figures


def subject_of(name: str, plain: Plain, count: int) -> Subject:
    model, data = plain
    study = find_study(name)
    protocol = study.protocol
    context = flatguard.evaluation.resolve(
        model, protocol.attack, data=data, norm=protocol.norm, eps=protocol.eps,
        attack_args=protocol.args, n_examples=count, batch_size=16,
    )  # fmt: skip
    return Subject(study, (context,), Silent())


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
    subject = subject_of("walter-fig2", plain_digits, 40)
    whole, first = walk_all(subject), walk_all(subject_of("walter-fig2", plain_digits, 16))
    torch.testing.assert_close(whole[torch.arange(16)].logits, first.logits)
    assert Path.joined([first, first]).labels.tolist() == first.labels.tolist() * 2


def test_scaling_masks_and_transfer_does_not(results: dict[str, Result]) -> None:
    found = results["walter-fig13"]
    assert claim(found, "transfer").ours == 1.0
    accuracy = found.figures["robust_accuracy"]
    assert accuracy[-1] > accuracy[0]
    by_first = found.figures["left_by_the_examples_of_s1"]
    assert all(left == by_first[0] for left in by_first)


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


def test_what_is_false_as_printed_is_refuted(results: dict[str, Result]) -> None:
    refuted = {
        (name, found.name)
        for name, result in results.items()
        for found in result.claims
        if found.verdict == "refuted"
    }
    assert {
        ("walter-lemma10", "flips-rise"), ("walter-lemma11", "as-printed"),
        ("walter-prop9", "closed-form"), ("walter-table1", "reverse KL to a soft target"),
    } <= refuted  # fmt: skip
    assert {name for study, name in refuted if study == "walter-table1"} == {
        "reverse KL to a soft target"
    }


def test_what_must_hold_holds(results: dict[str, Result]) -> None:
    """Theorems, on any network: a miss here is a fault of ours."""
    for study, name in (
        ("walter-lemma10", "large-rises-flip"), ("walter-lemma10", "least-rise"),
        ("walter-lemma10", "epsilon-star"), ("walter-lemma7", "orthogonal"),
        ("walter-eq5", "any-head"), ("walter-prop9", "limit"), ("walter-prop9", "feature-radius"),
    ):  # fmt: skip
        found = claim(results[study], name)
        assert found.verdict in ("agrees", "not-measured"), (study, name, found.note)


def test_bounds_are_called_what_they_are(results: dict[str, Result]) -> None:
    for study in ("walter-lemma7", "walter-eq5", "walter-prop9"):
        assert any("explanatory, not a certificate" in note for note in results[study].notes)


def test_a_model_without_a_head_is_told_so(plain_digits: Plain) -> None:
    headless = nn.Sequential(plain_digits[0], nn.Tanh())
    with pytest.raises(UsageError, match="needs the model's final linear layer"):
        reproduce("walter-fig2", [headless], data=plain_digits[1], n_examples=4)


def test_the_number_of_models_must_fit(plain_digits: Plain) -> None:
    model, data = plain_digits
    with pytest.raises(UsageError, match="walter-fig13: expected one --model, got 2"):
        reproduce("walter-fig13", [model, model], data=data)
    with pytest.raises(UsageError, match="walter-table1: expected no --model, got 1"):
        reproduce("walter-table1", [model], data=data)
    alone = reproduce("walter-fig12", [model], data=data, n_examples=4)
    assert claim(alone, "times-as-wide").verdict == "not-measured"
    assert math.isfinite(alone.seconds)
