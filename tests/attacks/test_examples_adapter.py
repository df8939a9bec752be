"""Stored examples as an attack: the library's own files, another order, and tampered ones."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from support import stored_examples
from support.stored_examples import EPS, Subject

import flatguard
from flatguard.attacks import build_attack, find_attack
from flatguard.attacks.example_matching import digest
from flatguard.attacks.examples_adapter import StoredAttack, ranges, shown
from flatguard.data.arrays import ArrayDataset
from flatguard.errors import AttackError, DataError, UsageError
from flatguard.geometry.budget import Budget
from flatguard.runs.run import Run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return stored_examples.subject(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def examples(made: Subject) -> torch.Tensor:
    """PGD's, within the budget; they fool the network on some images and not on others."""
    stored_examples.torchattacks_pgd(made, "pgd.pt")
    found: torch.Tensor = torch.load(made.folder / "pgd.pt")["adv_inputs"]
    assert 0.1 < made.robust(found) < 0.9
    return found


def met(made: Subject, file: Path, norm: str = "Linf", eps: float = EPS, **args: object):
    attack = build_attack(f"examples:{file}", Budget(norm, eps), 10, dict(args))
    attack.meet(ArrayDataset(*made.data, "digits"), len(made.images))
    assert isinstance(attack, StoredAttack)
    return attack


def robust_under(attack: StoredAttack, made: Subject) -> float:
    return made.robust(attack.perturb(made.model, *made.data, 0).images)


def saved(examples: torch.Tensor, folder: Path, name: str = "adv.pt") -> Path:
    torch.save(examples, folder / name)
    return folder / name


def test_what_four_libraries_saved_is_what_their_attacks_left(made: Subject) -> None:
    adversarial = stored_examples.autoattack(made)
    stored_examples.autoattack_individual(made)
    stored_examples.foolbox_pgd(made)
    stored_examples.torchattacks_pgd(made, "pgd-int.pt", save_type="int", save_clean_inputs=True)
    expected = made.robust(adversarial)
    for name in ("autoattack.pth", "autoattack-old.pth", "robustbench.pt"):
        attack = met(made, made.folder / name)
        assert robust_under(attack, made) == expected
        assert attack.notes == ()
    each = torch.load(made.folder / "individual.pth")
    right = [made.model(images).argmax(1) == made.labels for images, _ in each.values()]
    union = float(torch.stack(right).all(0).float().mean())
    assert robust_under(met(made, made.folder / "individual.pth"), made) == union
    _, clipped, success = torch.load(made.folder / "foolbox.pt")
    assert made.robust(clipped[1]) == pytest.approx(1 - float(success[1].float().mean()))
    for name in ("foolbox.pt", "foolbox.npz"):
        assert robust_under(met(made, made.folder / name), made) <= made.robust(clipped[1])
    integers = met(made, made.folder / "pgd-int.pt")
    assert any("by the rounding of uint8" in note for note in integers.notes)
    assert integers.matching.without == ()


def test_an_order_of_their_own_is_found_by_content(
    made: Subject, examples: torch.Tensor, tmp_path: Path
) -> None:
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))
    attack = met(made, saved(examples[order], tmp_path))
    assert attack.matching.image.tolist() == order.tolist()
    assert attack.matching.by == "content"
    assert robust_under(attack, made) == made.robust(examples)
    moved = int((order != torch.arange(len(order))).sum())
    assert attack.notes == (
        f"{moved} of {len(order)} examples are in another order than the images: matched by "
        "content",
    )


def test_a_subset_is_named_and_the_other_images_stay(
    made: Subject, examples: torch.Tensor, tmp_path: Path
) -> None:
    attack = met(made, saved(examples[10:25], tmp_path))
    left = [*range(10), *range(25, len(examples))]
    assert attack.matching.without == tuple(left)
    images = attack.perturb(made.model, *made.data, 0).images
    assert torch.equal(images[left], made.images[left])
    assert torch.equal(images[10:25], examples[10:25])
    assert any("25 of 40 images have no example and stay as they are: 0-9,25-39" in note
               for note in attack.notes)  # fmt: skip


def test_of_several_examples_the_one_that_fools_counts(
    made: Subject, examples: torch.Tensor, tmp_path: Path
) -> None:
    several = torch.cat([made.images, examples, made.images])
    attack = met(made, saved(several, tmp_path))
    assert attack.matching.several == len(examples)
    assert robust_under(attack, made) == made.robust(examples)
    assert any("40 images have several examples" in note for note in attack.notes)


def test_what_leaves_budget_and_box_is_counted_and_does_not_count(
    made: Subject, examples: torch.Tensor, tmp_path: Path
) -> None:
    tampered = examples.clone()
    tampered[:7] = (made.images[:7] + (examples[:7] - made.images[:7]) * 2).clamp(0, 1)
    tampered[7:10, 0, 0, 0] = -0.05
    tampered[10] = float("nan")
    attack = met(made, saved(tampered, tmp_path))
    assert (attack.matching.beyond, attack.matching.leaving) == (7, 3)
    assert attack.matching.without == (10,)
    notes = "; ".join(attack.notes)
    assert "7 of 40 examples lie outside Linf 0.1, up to 0.2" in notes
    assert "3 of 40 examples leave [0, 1]" in notes
    run = evaluated(made, saved(tampered, tmp_path), tmp_path)
    assert run.summary["outside_budget"] == 10
    robust = run.samples.set_index("sample")["robust"]
    clean = made.model(made.images).argmax(1) == made.labels
    assert robust[:11].tolist() == clean[:11].tolist()


def evaluated(made: Subject, file: Path, folder: Path, **options: object) -> Run:
    return flatguard.evaluate(
        made.model, f"examples:{file}", data=made.data, norm="Linf", eps=str(EPS),
        out=folder / "run", **{"checks": "none", **options},
    )  # fmt: skip


def test_examples_of_other_images_are_refused_before_anything_is_written(
    made: Subject, tmp_path: Path
) -> None:
    other = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match="none of the 40 examples belongs to one of the 40 images"):
        evaluated(made, saved(other, tmp_path), tmp_path)
    with pytest.raises(DataError, match="the examples are 3 x 32 x 32, and the images"):
        evaluated(made, saved(torch.rand(40, 3, 32, 32), tmp_path), tmp_path)
    assert not (tmp_path / "run").exists()


def test_indices_say_where_examples_belong(
    made: Subject, examples: torch.Tensor, tmp_path: Path
) -> None:
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(1))
    file = saved(examples[order], tmp_path)
    np.save(tmp_path / "order.npy", order.numpy())
    for given in (str(tmp_path / "order.npy"), order.tolist()):
        attack = met(made, file, indices=given)
        assert attack.matching.by == "number"
        assert robust_under(attack, made) == made.robust(examples)
        assert attack.notes == ()
    wrong = order.roll(1)
    with pytest.raises(DataError, match=r"contradict the images in \d+ of 40 examples: example 0"):
        met(made, file, indices=wrong.tolist())
    with pytest.raises(DataError, match="expected an index for each of 40 examples, got 39"):
        met(made, file, indices=order.tolist()[:-1])
    with pytest.raises(DataError, match="expected indices from 0 to 39 into digits, got 40"):
        met(made, file, indices=[*order.tolist()[:-1], 40])
    with pytest.raises(AttackError, match="expected a file, or a list of whole numbers"):
        met(made, file, indices=3)
    with pytest.raises(UsageError, match="leave out --shuffle"):
        evaluated(made, file, tmp_path, attack_args={"indices": order.tolist()}, shuffle=True)


def test_labels_of_the_file_that_are_not_the_images(
    made: Subject, examples: torch.Tensor, tmp_path: Path
) -> None:
    held = {"adv_inputs": examples, "labels": (made.labels + 1) % 10}
    attack = met(made, saved(held, tmp_path))
    assert attack.matching.other_labels == 40
    assert any("other labels than the images for 40 of 40" in note for note in attack.notes)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.8), ("L1", 6.4), ("L0", 64)])
def test_every_norm(
    made: Subject, examples: torch.Tensor, tmp_path: Path, norm: str, eps: float
) -> None:
    order = torch.arange(39, -1, -1)
    attack = met(made, saved(examples[order], tmp_path), norm, eps)
    assert robust_under(attack, made) <= made.robust(examples)
    if norm != "L0":
        assert attack.matching.image.tolist() == order.tolist()


def test_a_search_among_many_images_finds_each_one(tmp_path: Path) -> None:
    """More images than go through the search at once, in colour, with two that are the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(700, 3, 32, 32, generator=generator)
    images[500] = images[20]
    moved = torch.empty_like(images).uniform_(-8 / 255, 8 / 255, generator=generator)
    order = torch.randperm(700, generator=generator)
    file = saved((images + moved).clamp(0, 1)[order], tmp_path)
    attack = build_attack(f"examples:{file}", Budget("Linf", 8 / 255), 10, {})
    attack.meet(ArrayDataset(images, torch.zeros(700, dtype=torch.int64), "images"), 700)
    assert isinstance(attack, StoredAttack)
    found = attack.matching.image
    same = [digest(images[a]) == digest(images[b]) for a, b in zip(found, order, strict=True)]
    assert all(same)
    assert bool(attack.matching.inside.all())
    assert attack.matching.ambiguous == 0


def test_an_image_that_is_not_evaluated_has_no_place(
    made: Subject, examples: torch.Tensor, tmp_path: Path
) -> None:
    file = saved(examples, tmp_path)
    run = evaluated(made, file, tmp_path, n_examples=12)
    robust = run.samples["robust"].tolist()
    assert robust == (made.model(examples[:12]).argmax(1) == made.labels[:12]).tolist()
    assert any("28 of 40 examples belong to none of these 12 images" in text
               for text in run.summary["warnings"])  # fmt: skip


def test_a_run_knows_its_examples_by_their_content(
    made: Subject, examples: torch.Tensor, tmp_path: Path
) -> None:
    file = saved(examples, tmp_path)
    run = evaluated(made, file, tmp_path)
    assert run.summary["robust_accuracy"] == pytest.approx(made.robust(examples))
    assert run.summary["sample_forwards"] == 0
    flatguard.audit(run.path, checks="fast", model=made.model, data=made.data)
    saved(examples.flip(0), tmp_path)
    with pytest.raises(UsageError, match="holds other examples now"):
        flatguard.audit(run.path, checks="standard", model=made.model, data=made.data)


def test_names_and_arguments_are_checked_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(AttackError, match="no file none"):
        find_attack("examples:none.pt")
    with pytest.raises(AttackError, match=r"expected the path of a file of \.pt"):
        find_attack("examples:adv.png")
    with pytest.raises(AttackError, match=r"examples:none\.pt: no file"):
        flatguard.evaluate("no such model", "examples:none.pt")
    file = saved(torch.rand(2, 1, 8, 8), tmp_path)
    with pytest.raises(AttackError, match="has no argument 'steps'"):
        flatguard.evaluate("no such model", f"examples:{file}", attack_args={"steps": 3})
    with pytest.raises(AttackError, match="must meet the images"):
        build_attack(f"examples:{file}", Budget("Linf", 0.1), 10, {}).effective_args()


def test_ranges() -> None:
    assert ranges((0, 1, 2, 5, 7, 8)) == "0-2,5,7-8"
    assert ranges(()) == ""
    long = ranges(tuple(range(0, 200, 2)))
    assert len(shown(long)) <= 64
    assert shown(long).endswith(",...")


def test_a_matching_is_read_only(made: Subject, examples: torch.Tensor, tmp_path: Path) -> None:
    attack = met(made, saved(examples, tmp_path))
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.matching.moved = 3  # type: ignore[misc]
