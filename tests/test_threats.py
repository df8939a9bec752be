"""Several norms at once: how they are typed, and what is refused before anything is attacked."""

from pathlib import Path

import pytest
import torch
from support import digits
from support.digits_target import images, labels

from flatguard.errors import UsageError
from flatguard.reporting.union import UNION
from flatguard.threats import Threat, evaluate_union, threats_of


def test_norms_radii_and_attacks_are_lists_of_one_length() -> None:
    both = threats_of("Linf, L2", "8/255,0.5", "apgd-ce")
    assert both == [Threat("Linf", "8/255", "apgd-ce"), Threat("L2", "0.5", "apgd-ce")]
    assert [one.folder for one in both] == ["Linf-8-255", "L2-0.5"]
    two = threats_of("Linf,L2", "8/255,1", "torchattacks:PGD,torchattacks:PGDL2")
    assert [one.attack for one in two] == ["torchattacks:PGD", "torchattacks:PGDL2"]


@pytest.mark.parametrize(
    ("norm", "eps", "attack", "said"),
    [
        ("Linf,L2", "8/255", "apgd-ce", "a radius for each norm of Linf,L2"),
        ("Linf,L2", None, "apgd-ce", "a radius for each norm of Linf,L2"),
        ("Linf,L2", "8/255,1", "a,b,c", "one for each norm of Linf,L2, got 3"),
        ("Linf,Linf", "8/255,8/255", "apgd-ce", "Linf within 8/255 is there twice"),
    ],
)
def test_lists_that_do_not_fit_are_one_line(
    norm: str, eps: str | None, attack: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        threats_of(norm, eps, attack)


def test_a_wrong_threat_ends_before_the_first_attack(tmp_path: Path) -> None:
    model, data = digits.digits_net().eval(), (images(4), labels(4))
    wrong = [Threat("Linf", "0.1", "fab"), Threat("L3", "1", "fab")]
    with pytest.raises(UsageError, match="L3"):
        evaluate_union(model, wrong, data=data, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="two threats or more, got 1"):
        evaluate_union(model, wrong[:1], data=data, out=tmp_path / "new")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    fine = [Threat("Linf", "0.1", "fab"), Threat("L2", "1", "fab")]
    with pytest.raises(UsageError, match="is not empty"):
        evaluate_union(model, fine, data=data, out=tmp_path / "used")
    with pytest.raises(UsageError, match="local folder"):
        evaluate_union(model, fine, data=data, out="s3://bucket/run")


def test_each_threat_has_a_run_of_its_own(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        net = digits.trained()
    threats = threats_of("Linf,L2", "0.1,0.7", "torchattacks:FGSM,torchattacks:PGDL2")
    union, folder = evaluate_union(
        net, threats, data=(images(12), labels(12)), out=tmp_path / "u", checks="none"
    )
    assert folder == tmp_path / "u"
    assert {path.name for path in folder.iterdir()} >= {"Linf-0.1", "L2-0.7", UNION}
    assert (union.verdict, union.exit_code) == ("inconclusive", 3)
    assert union.samples == 12
