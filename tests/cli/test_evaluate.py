"""`flatguard evaluate`: JSON, options, and bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny
from support.commands import ARCH, CHECKPOINT, JUDGED, PGD

import flatguard
from flatguard.checks.verdict import EXIT_CODES


def test_one_json_object_on_stdout(cli, files: Path) -> None:
    result = cli(*CHECKPOINT, *PGD, "--json", "--seed", "3")
    assert result.code in JUDGED
    summary = json.loads(result.out)
    assert {
        "model", "attack", "norm", "eps", "n_examples", "clean_accuracy", "robust_accuracy",
        "sample_forwards", "sample_backwards", "adversarial_sha256", "seconds", "run",
    } <= set(summary)  # fmt: skip
    assert (summary["model"], summary["attack"]) == ("weights", "torchattacks:PGD")
    assert (summary["norm"], summary["eps"]) == ("Linf", 8 / 255)
    assert (summary["n_examples"], summary["sample_forwards"]) == (12, 36)
    assert "12 of 12 images" in result.err
    assert flatguard.load_run(summary["run"]).request.seed == 3
    assert result.code == EXIT_CODES[summary["verdict"]]


def test_other_losses_are_kept_beside_cross_entropy(cli, files: Path) -> None:
    named = ["--loss", "focal:1", "--loss", "kl:0.1"]
    assert cli(*CHECKPOINT, *PGD, *named, "--out", "run").code in JUDGED
    assert cli(*CHECKPOINT, *PGD, "--out", "plain").code in JUDGED
    run, plain = flatguard.load_run("run"), flatguard.load_run("plain")
    assert run.request.losses == ("focal:1", "kl:0.1")
    added = [f"{n}_{c}" for n in run.request.losses for c in ("loss", "trace_sign", "log_trace")]
    assert set(run.trajectory) - set(plain.trajectory) == set(added)
    assert set(run.samples) - set(plain.samples) == {
        f"{when}_{column}" for when in ("clean", "adv") for column in added
    }
    assert run.trajectory[added].notna().all(axis=None)
    assert run.samples["clean_focal:1_trace_sign"].isin([-1, 1]).all()
    # A soft target changes the loss but not the Hessian.
    trace = np.log(run.samples["clean_trace"])
    assert run.samples["clean_kl:0.1_log_trace"].to_numpy() == pytest.approx(trace, rel=1e-5)


def test_quiet_says_only_the_answer(cli, files: Path) -> None:
    result = cli(*CHECKPOINT, *PGD, "--quiet")
    assert result.err == ""
    assert "images from" not in result.out
    assert "robust accuracy" in result.out
    machine = cli(*CHECKPOINT, *PGD, "--quiet", "--json")
    assert machine.err == ""


def test_what_was_typed_is_in_the_manifest(files: Path) -> None:
    command = [sys.executable, "-m", "flatguard", *CHECKPOINT, *PGD, "--out", "run", "--quiet"]
    subprocess.run(command, check=False, cwd=files)
    typed = flatguard.load_run(files / "run").manifest.command
    assert list(typed[1:]) == [*CHECKPOINT, *PGD, "--out", "run", "--quiet"]


def swap(option: str, value: str) -> list[str]:
    changed = [*CHECKPOINT, *PGD]
    changed[changed.index(option) + 1] = value
    return changed


BAD: dict[str, tuple[list[str], str]] = {
    "unknown model": (["evaluate", "--model", "Carman2019", *PGD], "nearest: Carmon2019Unlabeled"),
    "ambiguous prefix": (["evaluate", "--model", "Wang2023", *PGD], "is ambiguous: Wang2023Better"),
    "no such file": (swap("--model", "no/weights.pt"), "no file no/weights.pt"),
    "wrong architecture": (swap("--arch", f"{ARCH}:resnet20"), "missing: conv1.weight"),
    "no architecture": (
        ["evaluate", "--model", "weights.safetensors", "--dataset", "data.npz", *PGD],
        "name their network with --arch",
    ),
    "truncated": (swap("--model", "truncated.safetensors"), "damaged or truncated"),
    "pickle": (swap("--model", "evil.pt"), "runs code when it is loaded"),
    "outside the box": (swap("--dataset", "outside.npz"), "expected images in [0, 1]"),
    "labels": (swap("--dataset", "labels.npz"), "expected labels from 0 to 3"),
    "nan": (swap("--model", "nan.safetensors"), "gives NaN or infinite logits"),
    "negative eps": (swap("--eps", "-8/255"), "expected a positive number such as 8/255"),
    "eps that is a word": (swap("--eps", "large"), "expected a number such as 8/255"),
    "norm mismatch": ([*CHECKPOINT, *PGD, "--norm", "L2"], "--norm L2 does not agree"),
    "unknown norm": ([*CHECKPOINT, *PGD, "--norm", "Linfty"], "--norm"),
    "eps twice": ([*CHECKPOINT, *PGD, "--attack-arg", "eps=0.1"], "give the radius with --eps"),
    "a typo": ([*CHECKPOINT, *PGD, "--attack-arg", "step=1"], "nearest: steps"),
    "a folder that exists": ([*CHECKPOINT, *PGD, "--out", "."], "exists already"),
    "a folder under a file": ([*CHECKPOINT, *PGD, "--out", "data.npz/run"], "cannot write to"),
    "mean without std": (
        ["evaluate", "--model", "weights.safetensors", "--mean", ".5", *PGD],
        "go",
    ),
    "mean of words": (swap("--mean", "a,b,c"), "--mean: expected numbers"),
    "three means, one std": (swap("--std", ".5"), "go together"),
    "unknown attack": (swap("--attack", "torchattacks:PDG"), "nearest: torchattacks:PGD"),
    "unknown data": (swap("--dataset", "cifar11"), "no data set 'cifar11'"),
    "too many": ([*CHECKPOINT, *PGD, "--n-examples", "13"], "has only 12 images"),
    "no images": ([*CHECKPOINT, *PGD, "--n-examples", "0"], "--n-examples"),
    "no radius": ([*CHECKPOINT, "--attack", "torchattacks:PGD"], "--eps is needed"),
    "unknown option": ([*CHECKPOINT, *PGD, "--epz", "1"], "--epz"),
    "missing option": (["evaluate", "--model", "demo"], "--attack is needed"),
    "a negative seed": ([*CHECKPOINT, *PGD, "--seed", "-1"], "--seed"),
    "no such device": ([*CHECKPOINT, *PGD, "--device", "cuda:99"], "use cpu"),
    "no such threat model": (
        ["evaluate", "--model", "Carmon2019", *PGD, "--threat-model", "L7"],
        "expected one of Linf, L2",
    ),
    "offline": (["evaluate", "--model", "Carmon2019", *PGD], "put the checkpoint at models/"),
    "cifar10 is not here": (swap("--dataset", "cifar10"), "--data-dir"),
    "preprocessing of arrays": (
        [*CHECKPOINT, *PGD, "--preprocessing", "Crop288"],
        "--preprocessing is for files of images",
    ),
    "a threat model for a file": ([*CHECKPOINT, *PGD, "--threat-model", "Linf"], "belongs to"),
    "eps that vanishes": (swap("--eps", "1e-400"), "expected a positive number"),
    "eps that would never end": (swap("--eps", "1e99999999"), "expected a number"),
    "an attack that fails at once": (
        [
            *CHECKPOINT,
            "--attack",
            "torchattacks:Square",
            "--eps",
            "1/255",
            "--norm",
            "Linf",
            "--attack-arg",
            "loss=x",
        ],
        "torchattacks:Square failed: AssertionError",
    ),
    "half a step": (
        [*CHECKPOINT, *PGD[:2], "--eps", "1/255", "--attack-arg", "steps=2.5"],
        "expected a whole number for steps (its default is 10), got 2.5",
    ),
    "no layers": ([*CHECKPOINT, *PGD, "--layers", "0"], "--layers"),
    "a head that is none": ([*CHECKPOINT, *PGD, "--head", "model.1"], "--head model.1:"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_2(case: str, cli, files: Path) -> None:
    whole = (files / "weights.safetensors").read_bytes()
    (files / "truncated.safetensors").write_bytes(whole[:-100])
    torch.save({"state_dict": Path.cwd}, files / "evil.pt")
    state = {k: v * float("nan") for k, v in tiny().state_dict().items()}
    save_file(state, files / "nan.safetensors")
    pixels = np.zeros((12, 3, 8, 8), np.float32)
    np.savez(files / "outside.npz", images=pixels + 2, labels=np.arange(12) % 4)
    np.savez(files / "labels.npz", images=pixels, labels=np.arange(12))
    before = sorted(files.rglob("*"))
    arguments, expected = BAD[case]
    result = cli(*arguments)
    assert result.code == 2
    assert result.out.count("\n") <= 1  # what was resolved, if it got so far
    assert result.err.startswith("flatguard: ")
    assert result.err.count("\n") == 1
    assert expected in result.err
    assert sorted(files.rglob("*")) == before  # nothing half-written


def test_json_is_clean_whatever_the_users_code_prints(cli, files: Path) -> None:
    (files / "loud.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(ARCH).parent)!r})\n"
        "from architectures import tiny\nprint('imported')\n"
        "def net():\n    print('built')\n    return tiny()\n"
    )
    arguments = [*CHECKPOINT, *PGD, "--json"]
    arguments[arguments.index("--arch") + 1] = "loud.py:net"
    result = cli(*arguments)
    assert json.loads(result.out)["n_examples"] == 12
    assert "built" in result.err


def test_a_surrogate_by_name(cli, files: Path) -> None:
    """The demo's model knows ten classes; this data has four."""
    cli(*CHECKPOINT, *PGD, "--out", "run", "--surrogate", "demo")
    finding = flatguard.audit("run").findings[6]
    assert (finding.check, finding.status) == ("surrogate-transfer", "not-run")
    assert "is right on only" in finding.summary


@pytest.mark.parametrize("name", ["weights.safetensors", "data.npz", "weights.pt", "data.pt"])
def test_a_file_that_cannot_be_read_is_neither_damaged_nor_written(
    name: str, cli, files: Path
) -> None:
    """Linux has no page at the start of a process's memory: to read it is an I/O error."""
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs /proc/self/mem")
    arguments = [*CHECKPOINT, *PGD]
    replaced = "weights.safetensors" if name.startswith("weights") else "data.npz"
    (files / name).unlink(missing_ok=True)
    (files / name).symlink_to("/proc/self/mem")
    arguments[arguments.index(replaced)] = name
    result = cli(*arguments)
    assert result.code == 2
    assert f"{name} cannot be read: " in result.err
    assert "damaged" not in result.err
