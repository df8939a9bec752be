"""Checkpoints to run folders to claims: on small networks, and on rows whose truth is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.digits import digits, digits_net
from support.weight_space import fitted

from flatguard.checks.weight_space.summary import weight_losses
from flatguard.cli.app import main
from flatguard.errors import RunFolderError, UsageError
from flatguard.runs.check_evidence import load_probes
from flatguard.runs.run import load_run
from flatguard.studies.claim import Claim
from flatguard.studies.reproduce import reproduce_from_runs
from flatguard.studies.stutz import correlation
from flatguard.studies.stutz.checkpoint import Checkpoint, checkpoint_of
from flatguard.studies.stutz.table import method_of, table, variant_of
from flatguard.studies.stutz.training_runs import claims_over

SHORT = [
    "--norm", "Linf", "--eps", "0.1", "--n-examples", "30", "--attack", "apgd-ce", "--attack-arg",
    "n_restarts=1", "--attack-arg", "n_iter=10", "--steps", "3", "--restarts", "1",
    "--directions", "2", "--worst-restarts", "1", "--batch-size", "30", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of one training run, its data, and the command's answer beside them."""
    folder = tmp_path_factory.mktemp("bench")
    images, labels = digits()
    for name, rows in (("test", slice(100, 200)), ("seen", slice(0, 40)), ("held", slice(40, 60))):
        np.savez(
            folder / f"{name}.npz",
            images=images[rows].permute(0, 2, 3, 1).numpy(), labels=labels[rows].numpy(),
        )  # fmt: skip
    (folder / "at-s0").mkdir()
    for epoch, steps in ((1, 10), (2, 60)):
        save_file(fitted(steps).state_dict(), folder / "at-s0" / f"epoch-{epoch}.safetensors")
    return folder


def measure(folder: Path, *more: str, out: str = "out") -> int:
    files = sorted(map(str, (folder / "at-s0").glob("*.safetensors")))
    data = ["--dataset", "test", "--training", "seen", "--held-out", "held"]
    data = [str(folder / f"{part}.npz") if i % 2 else part for i, part in enumerate(data)]
    with pytest.raises(SystemExit) as caught:
        main([
            "geometry", "robust-flatness", *files, *data, "--arch", "support.digits:digits_net",
            "--out", str(folder / out), *SHORT, *more,
        ])  # fmt: skip
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def answer(bench: Path) -> dict:
    assert measure(bench, "--quiet") == 0
    return json.loads((bench / "out" / "robust-flatness.json").read_text())


def test_a_row_is_what_the_evidence_says(bench: Path, answer: dict) -> None:
    first, last = answer["checkpoints"]
    assert [first["epoch"], last["epoch"]] == [1, 2]
    assert first["run"] == last["run"] == "at-s0"
    run = load_run(bench / "out" / "at-s0-epoch-2")
    assert last["rerr"] == pytest.approx(1 - run.samples["robust"].mean())
    losses = weight_losses(run)["test"].table
    means = losses.groupby(["case", "index"])[["clean_loss", "robust_loss"]].mean()
    reference = means.loc[("reference", 0)]
    assert last["rloss"] == pytest.approx(reference["robust_loss"])
    average = means.loc["average"].mean() - reference
    assert last["flatness"] == pytest.approx(average["robust_loss"])
    assert last["flatness_clean"] == pytest.approx(average["clean_loss"])
    assert last["flatness_interval"][0] < last["flatness"] < last["flatness_interval"][1]
    assert last["gap"] == pytest.approx(last["rloss"] - last["training_rloss"])
    wrong = run.samples["clean_correct"].to_numpy() == 0
    own = losses[losses["case"] == "reference"].sort_values("sample")
    assert last["rloss_incorrect"] == pytest.approx(own["robust_loss"][wrong].mean())
    assert last["rloss_correct"] == pytest.approx(own["robust_loss"][~wrong].mean())
    assert last["worst"] >= 0
    (row,) = answer["table"]
    assert row["last"] == last
    best = min(answer["checkpoints"], key=lambda c: c["held_out_rerr"])
    assert row["stopped"] == {"epoch": best["epoch"], "rerr": best["rerr"]}


def test_the_evidence_names_data_seeds_and_every_perturbed_model(bench: Path, answer: dict) -> None:
    run = load_run(bench / "out" / "at-s0-epoch-1")
    probes = {facts.facts["part"]: facts for facts in load_probes(run).values()}
    assert set(probes) == {"test", "training", "held-out"}
    facts = probes["test"].facts
    assert facts["data_sha256"] == run.manifest.data.sha256
    assert len(facts["models"]) == 1 + 2 + 2
    assert facts["models"][0]["weights_sha256"] == run.manifest.target.weights_sha256
    assert len({model["weights_sha256"] for model in facts["models"]}) == 5
    assert probes["test"].sample_forwards > 30 * 5 * 4


def test_what_was_measured_is_not_measured_again(bench: Path, answer: dict) -> None:
    files = sorted((bench / "out").glob("*/evidence/**/*.json"))
    before = {file: file.stat().st_mtime_ns for file in files}
    shutil.rmtree(bench / "out" / "at-s0-epoch-2")  # as if the command had been stopped there
    assert measure(bench, "--quiet") == 0
    kept = [file for file in files if "epoch-1" in str(file)]
    assert all(file.stat().st_mtime_ns == before[file] for file in kept)
    again = json.loads((bench / "out" / "robust-flatness.json").read_text())
    assert again == answer


def test_a_folder_of_something_else_is_refused(
    bench: Path, answer: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(bench, "--quiet", "--seed", "1") == 2
    assert "is of other seed; name another folder" in capsys.readouterr().err
    assert measure(bench, "--quiet", "--restarts", "2") == 2
    assert "by another protocol or on other data" in capsys.readouterr().err
    assert measure(bench, "--quiet", "--xi", "-1") == 2
    assert "--xi: expected a positive number, got -1" in capsys.readouterr().err
    assert measure(bench, "--quiet", "--norm", "L0", "--eps", "5", out="other") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (bench / "other").exists()


def test_json_is_one_object(bench: Path, answer: dict, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(bench, "--json") == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_a_landscape_is_kept_and_shown(
    bench: Path, answer: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(bench / "out" / "at-s0-epoch-2", run)
    seen, command = [], ["geometry", "landscape", str(run)]
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    assert "--allow-code" in capsys.readouterr().err  # the run names an architecture's code
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            main([*command, "--directions", "2", "--steps", "2", "--json", "--allow-code"])
        assert caught.value.code == 0
        seen.append(json.loads(capsys.readouterr().out))
    assert seen[0] == seen[1]
    by_t = {row["t"]: row for row in seen[0]}
    assert len(by_t) == 11
    reference = weight_losses(load_run(run))["test"].matrix("reference", "clean_loss").mean()
    assert by_t[0.0]["clean_loss"] == pytest.approx(reference)
    assert all(row["lowest"] <= row["robust_loss"] <= row["highest"] for row in seen[0])
    (kept,) = (run / "evidence" / "probes").glob("landscape-*")
    assert (kept / "landscape.parquet").is_file()
    page = (run / "report.html").read_text()
    assert "The loss around the weights" in page
    assert "Flatness in robust loss" in page
    shown = json.loads((run / "report.json").read_text())
    (section,) = (one for one in shown["sections"] if one["name"] == "geometry")
    flatness = section["data"]["weights"]["test"]["flatness"]
    assert flatness == pytest.approx(answer["checkpoints"][1]["flatness"])


def test_runs_are_read_without_a_model(bench: Path, answer: dict) -> None:
    found = reproduce_from_runs("stutz-fig1", [bench / "out"])
    assert [claim.verdict for claim in found.claims] == ["not-measured"] * len(found.claims)
    assert all("5 training runs" in claim.note for claim in found.claims)
    assert [row["epoch"] for row in found.figures["checkpoints"]] == [1, 2]
    assert found.shown is not None
    assert found.shown.samples == 30
    json.loads(found.model_dump_json())


def test_runs_that_do_not_fit_are_refused(bench: Path, answer: dict, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes no --runs"):
        reproduce_from_runs("stutz-fig4", [bench / "out"])
    with pytest.raises(RunFolderError, match="holds no runs"):
        reproduce_from_runs("stutz-fig1", [tmp_path])
    bare = tmp_path / "bare"
    shutil.copytree(bench / "out" / "at-s0-epoch-1", bare)
    shutil.rmtree(bare / "evidence" / "probes")
    with pytest.raises(RunFolderError, match="no weight flatness"):
        checkpoint_of(load_run(bare))


def row(run: str, epoch: int | None = 80, **values: float) -> Checkpoint:
    basic = {"clean_error": 0.1, "rerr": 0.4, "rerr_interval": (0.3, 0.5)}
    return Checkpoint(
        folder=run, run=run, epoch=epoch, weights_sha256="", samples=200, attack="standard",
        protocol="PGD-20 with 10 restarts", **{**basic, **values},
    )  # fmt: skip


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "RESAMPLES", 300)


def verdicts(claims: list[Claim]) -> dict[str, str]:
    return {claim.name: claim.verdict for claim in claims}


def related(sign: float, count: int = 30) -> list[Checkpoint]:
    """Runs whose losses, errors and gaps rise with flatness (or fall, or neither)."""
    generator = np.random.default_rng(0)
    found = []
    for index in range(count):
        flat = float(generator.uniform())
        level = sign * flat + 0.1 * float(generator.normal())
        found.append(
            row(
                f"m{index % 3}-{1 + index % 2}-s{index}", flatness=flat, flatness_clean=flat,
                worst=flat, training_flatness=flat, rloss=level, rerr=0.5 + level / 4, gap=level,
                training_rerr=0.5 - level / 4,
            )
        )  # fmt: skip
    return found


@pytest.mark.usefixtures("few_resamples")
def test_claims_follow_the_rows() -> None:
    names = [
        "flatness-rloss", "flatness-rerr", "worst-rloss", "clean-flatness-rloss",
        "training-flatness-rloss", "flatness-gap", "within-methods", "robust-are-flat",
    ]  # fmt: skip
    for sign, expected in ((1.0, "agrees"), (-1.0, "differs"), (0.0, "differs")):
        rows = related(sign)
        found = verdicts(
            [
                claim
                for name in ("fig1", "fig7", "fig6", "table1")
                for claim in claims_over(name, rows)
            ]
        )
        assert {found[name] for name in names} == {expected}
        assert found["training-error"] == "agrees"  # the two errors are related by themselves
    assert found["early-stopping"] == "not-measured"


@pytest.mark.usefixtures("few_resamples")
def test_overfitting_is_seen_where_it_is_and_only_there() -> None:
    """Held-out samples choose epoch 40; then losses rise, or stay."""
    generator = np.random.default_rng(0)

    def epochs(grows: bool) -> list[Checkpoint]:
        found = []
        for seed in range(8):
            for epoch, held, loss in ((20, 0.6, 2.0), (40, 0.3, 1.0), (80, 0.35, 2.0)):
                noise = 0.05 * float(generator.normal())
                level = (loss if grows or epoch == 20 else 1.0) + noise
                found.append(
                    row(
                        f"at-s{seed}", epoch, held_out_rerr=held, rloss=level, rloss_correct=level,
                        rloss_incorrect=level, rerr=level / 4, training_rloss=2 - epoch / 60,
                        flatness=level,
                    )
                )  # fmt: skip
        return found

    grown, steady = epochs(True), epochs(False)
    assert set(verdicts(claims_over("fig2", grown)).values()) == {"agrees"}
    assert verdicts(claims_over("fig2", steady))["rloss-rises"] == "differs"
    assert verdicts(claims_over("fig5", grown))["flatness-rises"] == "agrees"
    assert verdicts(claims_over("fig5", steady))["flatness-rises"] == "differs"
    assert verdicts(claims_over("table1", grown))["early-stopping"] == "agrees"
    (first, *_) = table(grown)
    assert first.stopped is not None
    assert first.stopped.epoch == 40
    nothing = [c.model_copy(update={"held_out_rerr": None}) for c in grown]
    assert set(verdicts(claims_over("fig2", nothing)).values()) == {"not-measured"}


@pytest.mark.parametrize(
    ("run", "variant", "method"),
    [
        ("awp-0.01-s3", "awp-0.01", "awp"),
        ("label-noise-0.3-s0", "label-noise-0.3", "label-noise"),
        ("weight-decay-5e-4-seed-2", "weight-decay-5e-4", "weight-decay"),
        ("at-s0", "at", "at"),
        ("resnet18", "resnet18", "resnet18"),
    ],
)
def test_names_say_method_and_seed(run: str, variant: str, method: str) -> None:
    assert (variant_of(run), method_of(run)) == (variant, method)


def test_figure_4_holds_on_a_small_network(tmp_path: Path) -> None:
    from flatguard.studies.reproduce import reproduce

    images, labels = digits()
    net = digits_net()
    net.load_state_dict(fitted().state_dict())
    found = reproduce("stutz-fig4", [net.eval()], data=(images[:8], labels[:8]), device="cpu")
    named = {claim.name: claim for claim in found.claims}
    for name in ("landscape-x2", "flatness-x2", "landscape-x0.5", "flatness-x0.5"):
        assert named[name].verdict == "agrees"
        assert named[name].ours == 0.0
    assert named["normalisation-matters"].verdict == "agrees"
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    alone = reproduce("stutz-fig4", [flat], data=(images[:8], labels[:8]), device="cpu")
    assert {claim.verdict for claim in alone.claims} == {"not-measured"}
