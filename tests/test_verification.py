"""`verify()`: claims on a small network, with examples that attack libraries saved."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support import stored_examples
from support.stored_examples import EPS, Subject

import flatguard
from flatguard import Answer
from flatguard.checks.claims.stored_claim import CLAIM, load_claim
from flatguard.errors import DataError, RunFolderError, UsageError
from flatguard.runs.run import load_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    found = stored_examples.subject(tmp_path_factory.mktemp("claims"))
    stored_examples.autoattack(found)
    stored_examples.torchattacks_pgd(found, "pgd.pt")
    stored_examples.foolbox_pgd(found)
    return found


def verified(made: Subject, claim: str, file: str | None, folder: Path, **options: Any) -> Answer:
    how = {"norm": "Linf", "eps": str(EPS), "data": made.data, "checks": "fast", **options}
    examples = None if file is None else made.folder / file
    return flatguard.verify(made.model, claim, examples=examples, out=folder / "run", **how)


def left(made: Subject, file: str) -> float:
    held = torch.load(made.folder / file)
    examples = {
        "autoattack.pth": lambda: held["adv_complete"][0],
        "pgd.pt": lambda: held["adv_inputs"],
        "foolbox.pt": lambda: held[1][1],
    }[file]()
    return made.robust(examples)


@pytest.mark.parametrize("file", ["autoattack.pth", "pgd.pt", "foolbox.pt"])
def test_what_a_library_saved_reproduces_its_own_number(
    made: Subject, file: str, tmp_path: Path
) -> None:
    share = left(made, file)
    answer = verified(made, f"{share:.1%}", file, tmp_path, tolerance=0.3)
    assert (answer.word, answer.exit_code) == ("reproduced", 0), answer.sentence
    assert answer.right == round(share * 40)
    assert answer.robust.kind == "count"
    assert answer.corrected <= answer.right
    stored = load_claim(load_run(tmp_path / "run"))
    assert stored is not None
    assert stored.answer == answer
    assert "on the claim" in answer.sentence


def test_a_claim_that_is_too_high_is_refuted_by_the_samples(made: Subject, tmp_path: Path) -> None:
    share = left(made, "autoattack.pth")
    answer = verified(made, f"{share + 0.025:.1%}", "autoattack.pth", tmp_path)
    assert (answer.word, answer.exit_code) == ("refuted", 1)
    assert answer.sentence.startswith(f"refuted: {share + 0.025:.1%} is claimed, and at most")
    run = load_run(tmp_path / "run")
    table = run.samples.set_index("sample")
    fooled = set(table.index[table["clean_correct"] & ~table["robust"]])
    assert set(answer.refuting) >= fooled
    assert len(answer.refuting) == int(table["clean_correct"].sum()) - answer.corrected


def test_a_claim_of_a_weak_attack_is_refuted_by_the_checks(made: Subject, tmp_path: Path) -> None:
    """The examples are the clean images: they leave what the claim says."""
    torch.save(made.images, made.folder / "clean.pt")
    answer = verified(made, f"{made.robust(made.images):.1%}", "clean.pt", tmp_path)
    assert answer.word == "refuted"
    assert "withstand the examples, and the checks fool the model on" in answer.sentence
    assert answer.robust.is_below is False
    assert answer.corrected < 0.9 * answer.right


def test_examples_outside_the_budget_do_not_reproduce_a_claim(
    made: Subject, tmp_path: Path
) -> None:
    """Twice the budget leaves less; within the budget the claim is not what they show."""
    held = torch.load(made.folder / "pgd.pt")["adv_inputs"]
    far = (made.images + 2 * (held - made.images)).clamp(0, 1)
    torch.save(far, made.folder / "far.pt")
    assert made.robust(far) < made.robust(held)
    answer = verified(made, f"{made.robust(far):.1%}", "far.pt", tmp_path)
    assert (answer.word, answer.exit_code) == ("not reproduced", 1)
    assert "points more" in answer.sentence
    assert any("examples lie outside Linf 0.1, up to 0.2" in note for note in answer.notes)


def test_a_swapped_pair_of_files_and_another_model(made: Subject, tmp_path: Path) -> None:
    other = stored_examples.subject(made.folder)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(-1)
    answer = flatguard.verify(
        other.model, "85%", examples=made.folder / "pgd.pt", claim_clean="95%", norm="Linf",
        eps=str(EPS), data=made.data, out=tmp_path / "run",
    )  # fmt: skip
    assert answer.word == "not reproduced"
    assert "another clean accuracy: 95.0% is claimed" in answer.sentence
    assert any("the set-up may be another one" in note for note in answer.notes)
    without = flatguard.verify_run(tmp_path / "run", "85%")
    assert (without.word, without.exit_code) == ("undecided", 3)


def test_a_subset_is_judged_on_the_images_that_have_examples(made: Subject, tmp_path: Path) -> None:
    examples = torch.load(made.folder / "autoattack.pth")["adv_complete"][0]
    torch.save(examples[10:30], made.folder / "part.pt")
    right = (made.model(examples[10:30]).argmax(1) == made.labels[10:30]).sum()
    answer = verified(made, f"{int(right) / 20:.1%}", "part.pt", tmp_path, tolerance=0.3)
    assert (answer.word, answer.images, answer.right) == ("reproduced", 20, int(right))
    assert any("20 of 40 images have no example" in note for note in answer.notes)


def test_a_part_of_the_claim_s_images_is_tested_exactly(made: Subject, tmp_path: Path) -> None:
    answer = verified(made, "1%", "autoattack.pth", tmp_path, claim_images=10_000)
    assert answer.word == "not reproduced"
    assert answer.robust.kind == "hypergeometric"
    near = flatguard.verify_run(tmp_path / "run", f"{answer.right / 40:.0%}", claim_images=10_000)
    assert near.word == "undecided"
    assert "40 images cannot tell" in near.sentence
    assert "evaluate about" in near.sentence


def test_without_examples_an_attack_takes_their_place(made: Subject, tmp_path: Path) -> None:
    answer = verified(made, "97%", None, tmp_path)
    assert answer.word == "refuted"
    run = load_run(tmp_path / "run")
    assert (run.request.attack, run.request.attack_args) == ("apgd-ce", {"n_restarts": 1})
    named = verified(
        made, "95%", None, tmp_path / "named", attack="torchattacks:FGSM", claim_images=20
    )
    run = load_run(tmp_path / "named" / "run")
    assert (run.request.attack, run.request.n_examples, named.images) == (
        "torchattacks:FGSM", 20, 20,
    )  # fmt: skip


def test_a_run_that_is_judged_again_answers_its_claim_again(made: Subject, tmp_path: Path) -> None:
    share = left(made, "pgd.pt")
    verified(made, f"{share:.1%}", "pgd.pt", tmp_path, checks="none")
    run = load_run(tmp_path / "run")
    stored = load_claim(run)
    assert stored is not None
    assert stored.answer is not None
    assert stored.answer.word == "undecided", "without checks nothing is supported"
    flatguard.audit(run.path, checks="fast", model=made.model, data=made.data, tolerance=0.3)
    again = load_claim(run)
    assert again is not None
    assert again.answer is not None
    assert again.answer.word == "reproduced"
    assert load_run(run.path).summary["claim"]["answer"]["word"] == "reproduced"


def test_the_report_shows_the_claim_and_other_reports_have_no_such_section(
    made: Subject, tmp_path: Path
) -> None:
    share = left(made, "pgd.pt")
    answer = verified(made, f"{share + 0.05:.1%}", "pgd.pt", tmp_path)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (section,) = [s for s in report["sections"] if s["name"] == "claim"]
    assert section["data"]["answer"]["word"] == answer.word == "refuted"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The claim is false: adversarial examples within the budget disprove it." in page
    assert "refuted by samples" in page
    (tmp_path / "run" / CLAIM).unlink()
    flatguard.audit(tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "claim" not in {s["name"] for s in report["sections"]}
    assert load_run(tmp_path / "run").summary["claim"] is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"claim": "90.5"}, "write 90.5% for percent"),
        ({"attack": "apgd-ce"}, "leave out --attack"),
        ({"examples": None, "indices": [1]}, "give --examples, too"),
        ({"examples": torch.rand(2, 1, 8, 8)}, "expected the path of a file, got Tensor"),
        ({"claim_images": 20, "n_examples": 30}, "the claim is about 20 images; give --n-examples"),
        ({"claim_clean": "10%"}, "is above --claim-clean 10%"),
    ],
)
def test_what_contradicts_itself_is_refused_and_nothing_is_written(
    made: Subject, tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    how = {"claim": "50%", "examples": made.folder / "pgd.pt", "data": made.data, **options}
    with pytest.raises(UsageError, match=expected):
        flatguard.verify(made.model, norm="Linf", eps="0.1", out=tmp_path / "run", **how)
    assert not (tmp_path / "run").exists()


def test_a_run_or_a_claim_that_is_damaged(made: Subject, tmp_path: Path) -> None:
    verified(made, "50%", "pgd.pt", tmp_path, checks="none")
    file = tmp_path / "run" / CLAIM
    file.write_text(file.read_text().replace("robust", "roboost", 1))
    with pytest.raises(RunFolderError, match=r"claim\.json is damaged"):
        flatguard.audit(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evidence" / "blocks")
    with pytest.raises(RunFolderError, match="no finished block yet"):
        flatguard.verify_run(tmp_path / "run", "50%")


def test_examples_of_other_images_end_it_at_once(made: Subject, tmp_path: Path) -> None:
    torch.save(torch.rand(40, 1, 8, 8), made.folder / "other.pt")
    with pytest.raises(DataError, match="none of the 40 examples"):
        verified(made, "50%", "other.pt", tmp_path)
    assert not (tmp_path / "run").exists()
