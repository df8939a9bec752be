"""`evaluate()` and `audit()`: real networks against known figures, and their last step."""

import shutil
from pathlib import Path

import pytest
import torch
import torchattacks
from pyautoattack import AutoAttack
from support.architectures import resnet20, tiny
from support.failing import PGD
from support.listeners import Listener

import flatguard
from flatguard.checks.verdict import verdict_of
from flatguard.data import load_dataset
from flatguard.data.dataset import Batch
from flatguard.errors import RunFolderError
from flatguard.request import derive_seed
from flatguard.runs.check_evidence import load_probes
from flatguard.runs.run import Run
from flatguard.targets import Target

Images = tuple[torch.Tensor, torch.Tensor]
RESNET = "cifar10_resnet20_standard.safetensors"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ARCH = f"{Path(__file__).parent / 'support' / 'architectures.py'}:resnet20"


def pgd_on_resnet20(real: Path, scale: float) -> Run:
    return flatguard.evaluate(
        str(real / "checkpoints" / RESNET),
        "torchattacks:PGD",
        data=str(real / "cifar10_test_first1000.npz"),
        arch=ARCH,
        mean=MEAN,
        std=STD,
        n_examples=200,
        eps="8/255",
        attack_args={"steps": 10, "random_start": False},
        logit_scale=scale,
        checks="none",
    )


def test_confidence_alone_hides_every_adversarial_example(real: Path) -> None:
    """Scaling the logits moves no decision, but PGD's robust accuracy from 0 to 90%."""
    honest, masked = pgd_on_resnet20(real, 1.0), pgd_on_resnet20(real, 100.0)
    assert honest.summary["robust_accuracy"] == 0.0
    assert masked.summary["robust_accuracy"] > 0.85
    assert honest.summary["clean_accuracy"] == masked.summary["clean_accuracy"] == 0.91
    assert masked.summary["median_log_kappa_clean"] < -1000
    assert masked.samples["clean_log_kappa"].notna().all()
    # The examples of s = 1 fool every s.
    adversarial = torch.cat([honest.adversarial(b.plan.index) for b in honest.blocks])
    labels = torch.tensor(honest.samples["label"].to_numpy())
    for scale in (1.0, 2.0, 10.0, 100.0):
        target = flatguard.load_target(
            str(real / "checkpoints" / RESNET), arch=ARCH, mean=MEAN, std=STD
        )
        target = flatguard.targets.prepare(target, adversarial[:4], logit_scale=scale)
        with torch.no_grad():
            assert (target.model(adversarial).argmax(1) == labels).sum() == 0


def test_kappa_by_the_naive_formula_is_zero_for_half_of_the_images(real: Path) -> None:
    """1 - sum p² in float32 is exactly 0 with logits doubled; ours is a number for all."""
    batch = load_dataset(str(real / "cifar10_test_first1000.npz")).block(0, 200)
    target = flatguard.load_target(
        str(real / "checkpoints" / RESNET), arch=ARCH, mean=MEAN, std=STD
    )
    target = flatguard.targets.prepare(target, batch.images[:4], logit_scale=2.0)
    with flatguard.Recorder(target.model, batch.images, batch.labels) as recorder, torch.no_grad():
        p = target.model(batch.images).softmax(1)
    assert (1 - p.square().sum(1)).median() == 0
    log_kappa = recorder.trajectory()["log_kappa"]
    assert log_kappa.notna().all()
    assert log_kappa.nunique() == 200


def test_a_run_is_what_the_library_gives_without_us(demo: Target, demo_batch: Batch) -> None:
    run = flatguard.evaluate("demo", "apgd-ce", attack_args={"n_iter": 5, "n_restarts": 1}, seed=4)
    attack = AutoAttack(
        demo.model, norm="Linf", eps=8 / 255, version="custom", attacks=["apgd-ce"],
        seed=derive_seed(4, 0, "apgd-ce"),
    )  # fmt: skip
    attack.apgd.n_iter, attack.apgd.n_restarts = 5, 1
    bare, _ = attack.run_standard_evaluation(demo_batch.images, demo_batch.labels, batch_size=20)
    assert torch.equal(run.adversarial(0), bare)


def test_the_uncanny_valley_on_the_demo(demo_batch: Batch) -> None:
    """Walter et al. (2026), Figure 3: κ rises to a ridge and falls far below the clean value."""
    run = flatguard.evaluate("demo", "torchattacks:PGD")
    assert run.summary["robust_accuracy"] == 0.0
    assert run.manifest.target.source == "ResNet-18 from the pyautoattack package"
    median = run.trajectory.groupby("call")["log_kappa"].median()
    assert median.max() > median.iloc[0] + 3
    assert median.iloc[-1] < median.iloc[0] - 3


def test_a_notebooks_way() -> None:
    torch.manual_seed(0)
    model = resnet20()
    x, y = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    with flatguard.Recorder(model, x, y) as rec:
        torchattacks.PGD(rec.model, steps=2)(x, y)
    assert rec.model is model
    frame = rec.trajectory()
    wanted = [
        "sample", "call", "loss", "log_kappa", "trace", "feature_norm", "confidence", "margin",
        "prediction", "linf", "l2",
    ]  # fmt: skip
    assert list(frame.columns)[:11] == wanted
    assert set(frame["assigned_by"]) == {"unique"}
    assert not frame["bookkeeping"].any()
    assert len(frame) == 8


def test_checks_that_are_missing_are_run_later_with_the_same_evidence(
    tiny_data: Images, tmp_path: Path
) -> None:
    model = tiny().eval()
    options = {**PGD, "data": tiny_data, "batch_size": 6}
    whole = flatguard.evaluate(model, **options, checks="fast", out=tmp_path / "whole")
    bare = flatguard.evaluate(model, **options, checks="none", out=tmp_path / "bare")
    assert set(load_probes(bare)) == {"preflight"}
    assert flatguard.audit(bare).verdict == "inconclusive"
    verdict = flatguard.audit(bare.path, checks="fast", model=model, data=tiny_data)
    assert verdict.model_dump() == verdict_of(whole).model_dump()
    assert load_probes(bare).keys() == load_probes(whole).keys()
    assert bare.samples.equals(whole.samples)


def test_a_shard_ends_after_the_attack(tiny_data: Images, tmp_path: Path) -> None:
    part = flatguard.evaluate(
        tiny().eval(), **PGD, data=tiny_data, batch_size=6, shard="1/2", out=tmp_path / "part"
    )
    assert [block.plan.index for block in part.blocks] == [0]
    assert set(load_probes(part)) == {"preflight"}
    assert not list(part.path.glob("*.json")) + list(part.path.glob("report.*"))


def test_the_seconds_of_a_run_are_kept_when_it_is_judged_again(
    tiny_data: Images, tmp_path: Path
) -> None:
    run = flatguard.evaluate(tiny().eval(), **PGD, data=tiny_data, out=tmp_path / "run")
    before = run.summary
    assert before["seconds"] > before["attack_seconds"] > 0
    assert flatguard.audit(run, tolerance=0.5).tolerance == 0.5
    assert run.summary["tolerance"] == 0.5
    assert run.summary["seconds"] == before["seconds"]


def test_an_interrupted_run_names_the_command_that_resumes_it(
    tiny_data: Images, tmp_path: Path
) -> None:
    class Impatient(Listener):
        def advanced(self, samples: int) -> None:
            if (tmp_path / "a run" / "evidence" / "blocks").is_dir() and samples == 4:
                raise KeyboardInterrupt

    listener = Impatient()
    with pytest.raises(KeyboardInterrupt):
        flatguard.evaluate(
            tiny().eval(), **PGD, data=tiny_data, batch_size=4, out=tmp_path / "a run",
            progress=listener,
        )  # fmt: skip
    assert "resume" in listener.lines[-1]
    assert f"'{tmp_path / 'a run'}'" in listener.lines[-1]


def test_shards_measure_preflight_once_more_and_their_run_not_at_all(
    tiny_data: Images, tmp_path: Path
) -> None:
    """A merged run has the facts of its shards, and resumes to the evidence of a whole run."""
    model, options = tiny().eval(), {**PGD, "data": tiny_data, "batch_size": 6}
    whole = flatguard.evaluate(model, **options, checks="fast", out=tmp_path / "whole")
    parts = [
        flatguard.evaluate(model, **options, checks="fast", shard=part, out=tmp_path / part[0])
        for part in ("1/2", "2/2")
    ]
    merged = flatguard.merge(parts, tmp_path / "merged")
    assert load_probes(merged) == load_probes(parts[1])
    files = Path("evidence/probes/preflight")
    kept = {file.name: file.read_bytes() for file in (merged.path / files).iterdir()}
    assert kept["probe.json"] == (whole.path / files / "probe.json").read_bytes()
    resumed = flatguard.resume(merged, model=model, data=tiny_data)
    assert {f.name: f.read_bytes() for f in (merged.path / files).iterdir()} == kept
    assert verdict_of(resumed).model_dump() == verdict_of(whole).model_dump()


def test_preflight_is_measured_again_where_it_is_missing_and_refused_where_it_is_damaged(
    tiny_data: Images, tmp_path: Path
) -> None:
    model, options = tiny().eval(), {**PGD, "data": tiny_data, "batch_size": 6}
    run = flatguard.evaluate(model, **options, checks="none", out=tmp_path / "run")
    file = run.path / "evidence/probes/preflight/probe.json"
    whole = file.read_bytes()
    shutil.rmtree(file.parent)
    assert "not-run" in {f.status for f in flatguard.audit(run.path).findings}
    flatguard.resume(run.path, model=model, data=tiny_data)
    assert file.read_bytes() == whole
    for damaged in (whole[:-20], whole.replace(b"forwards", b"backwards", 1), b""):
        file.write_bytes(damaged)
        for work in (flatguard.audit, lambda path: flatguard.resume(path, model=model)):
            with pytest.raises(RunFolderError, match=r"probe\.json") as caught:
                work(run.path)
            assert len(str(caught.value).splitlines()) == 1
