"""The command line as a person and as a script see it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny
from support.evidence_files import evidence_files

import flatguard
from flatguard.checks.finding import TRUST
from flatguard.checks.verdict import EXIT_CODES
from flatguard.cli.app import main

ARCH = str(Path(__file__).parents[1] / "support" / "architectures.py")


class Result:
    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> object:
    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(caught.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A checkpoint and a data set, as a user has them."""
    torch.manual_seed(0)
    save_file(tiny().state_dict(), tmp_path / "weights.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(12) % 4)
    return tmp_path


CHECKPOINT = [
    "evaluate", "--model", "weights.safetensors", "--arch", f"{ARCH}:tiny", "--mean",
    ".485,.456,.406", "--std", ".229,.224,.225", "--dataset", "data.npz",
]  # fmt: skip
JUDGED = (0, 1, 3)
PGD = ["--attack", "torchattacks:PGD", "--attack-arg", "steps=3", "--eps", "8/255"]


def test_the_answer_for_a_person(cli, files: Path) -> None:
    result = cli(*CHECKPOINT, *PGD, "--out", "run")
    assert result.code in JUDGED
    lines = result.out.splitlines()
    assert "12 of 12 images from data.npz; torchattacks:PGD within Linf 8/255" in lines[0]
    for words in ("clean accuracy", "robust accuracy, Linf 8/255", "95% interval", "median log κ"):
        assert words in result.out
    assert lines[-1] == "run/report.html"
    assert flatguard.load_run("run").complete


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


def test_deeper_layers_end_the_answer(cli, files: Path) -> None:
    result = cli(*CHECKPOINT, *PGD, "--layers", "2", "--layer-samples", "2", "--out", "run")
    assert result.code in JUDGED
    assert "median κ of 2 samples, estimated ± standard error" in result.out
    lines = result.out.splitlines()
    head = next(line for line in lines if line.startswith("head  model.3"))
    before = lines[lines.index(head) + 1]  # the network has one layer before its head
    assert before.startswith("l-1   model.1")
    assert " clean → " in before
    assert before.count(" ± ") == 2


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
        [*CHECKPOINT, *PGD[:2], "--eps", "1/255", "--attack-arg", "steps=2.5"],
        "torchattacks:PGD failed: TypeError",
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


def test_a_model_in_training_mode_is_said(cli, files: Path) -> None:
    torch.save(tiny().train(), files / "whole.pt")
    result = cli("evaluate", "--model", "whole.pt", "--allow-code", "--dataset", "data.npz", *PGD)
    assert result.code in JUDGED
    assert "it is evaluated in eval mode" in result.out


def test_without_a_head_kappa_is_said_to_be_missing(cli, files: Path) -> None:
    torch.save(torch.nn.Sequential(tiny(), torch.nn.Softmax(1)).eval(), files / "soft.pt")
    result = cli("evaluate", "--model", "soft.pt", "--allow-code", "--dataset", "data.npz", *PGD)
    assert result.code in JUDGED
    assert "κ is not measured: the model's output is not that of its layer '0.3'" in result.out
    assert "median log κ" in result.out
    assert "not measured: " in result.out


def test_scaled_logits_are_said(cli, files: Path) -> None:
    result = cli(*CHECKPOINT, *PGD, "--logit-scale", "100")
    assert "logits × 100" in result.out


def test_attacks(cli) -> None:
    everything = cli("attacks")
    assert everything.code == 0
    for name in ("apgd-ce", "torchattacks:PGD", "foolbox:LinfPGD"):
        assert name in everything.out
    one = json.loads(cli("attacks", "torchattacks:PGD", "--json").out)
    assert one[0]["norms"] == ["Linf"]
    assert one[0]["arguments"]["steps"] == "10"
    assert "random_start=True" in cli("attacks", "torchattacks:PGD").out.replace("\n", "")
    assert cli("attacks", "PDG").code == 2


def test_models(cli) -> None:
    everything = json.loads(cli("models", "--json").out)
    assert everything[0]["name"] == "demo"
    assert len(everything) > 150
    found = cli("models", "carmon")
    assert "Carmon2019Unlabeled" in found.out
    assert "Linf 8/255" in found.out
    corrupted = cli("models", "--dataset", "cifar100", "--threat-model", "corruptions")
    assert "name --norm and --eps" in corrupted.out
    assert cli("models", "--dataset", "mnist").code == 2


def test_models_says_which_are_here(cli, tmp_path: Path) -> None:
    file = tmp_path / "zoo" / "cifar10" / "Linf" / "Carmon2019Unlabeled.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    rows = json.loads(cli("models", "Carmon", "--model-dir", tmp_path / "zoo", "--json").out)
    assert [row["here"] for row in rows] == [True]


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


@pytest.mark.parametrize("sink", ["> /dev/full", "| true"])
def test_output_that_cannot_be_written_is_no_traceback(sink: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = f"{sys.executable} -m flatguard attacks {sink}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Traceback" not in result.stderr
    if "full" in sink:
        assert result.stderr == "flatguard: cannot write the output: No space left on device\n"


def test_a_file_that_cannot_be_written_is_named(cli, files: Path) -> None:
    cli(*CHECKPOINT, *PGD, "--out", "run")
    result = cli("compare", "run", "run", "--html", "none/page.html")
    assert (result.code, result.err) == (
        2,
        "flatguard: none/page.html: No such file or directory\n",
    )


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


def test_an_ascii_terminal(files: Path) -> None:
    command = [sys.executable, "-m", "flatguard", *CHECKPOINT, *PGD, "--out", "run"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=files)
    assert result.returncode in JUDGED, result.stderr
    assert "robust accuracy" in result.stdout


def test_help_and_version(cli) -> None:
    assert cli("--version").out == f"flatguard {flatguard.__version__}\n"
    usage = cli()
    assert usage.code == 2
    assert "Usage: flatguard" in usage.out + usage.err
    assert "--attack-arg" in cli("evaluate", "--help").out


def test_an_interrupted_run_exits_with_130() -> None:
    command = [sys.executable, "-m", "flatguard", "evaluate", "--model", "demo"]
    command += ["--attack", "square", "--out", "run"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    deadline = time.monotonic() + 120
    while not Path("run/evidence/manifest.json").exists():
        assert time.monotonic() < deadline, "the run did not begin"
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "flatguard: interrupted; what was recorded is kept\n"
    if Path("run").exists():  # its only block had called the model already
        run = flatguard.load_run("run")
        assert not run.complete
        assert len(run.failed_trajectory(0)) == run.failures[0].sample_forwards


def all_gone(group: int, seconds: float = 20) -> bool:
    """Whether the processes of a group end soon; Python's resource tracker is a little late."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_interrupted_workers_leave_nothing_behind_and_the_run_goes_on(cli) -> None:
    """Ctrl-C of a terminal, which every process of the run gets at once."""
    asked = ["evaluate", "--model", "demo", "--attack", "torchattacks:PGD", "--attack-arg"]
    asked += ["steps=10", "--batch-size", "2", "--threads", "1", "--checks", "none"]
    command = [sys.executable, "-m", "flatguard", *asked, "--workers", "2", "--out", "run"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(Path("run").glob("evidence/blocks/0*")):
        assert time.monotonic() < deadline, "no block was done"
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.endswith("flatguard resume run goes on\n")
    assert err.endswith("flatguard: interrupted; what was recorded is kept\n")
    assert "Traceback" not in err
    assert all_gone(process.pid)
    done = len(flatguard.load_run("run").blocks)
    assert 1 <= done < 10
    assert not list(Path("run").glob(".staging/*"))
    again = cli("resume", "run", "--workers", "2")
    assert f"{done} of 10 blocks were done before" in again.out
    cli(*asked, "--out", "whole")
    assert evidence_files(Path("run")) == evidence_files(Path("whole"))


def test_a_verdict_judged_again_from_the_folder(cli, files: Path) -> None:
    first = cli(*CHECKPOINT, *PGD, "--json", "--out", "run")
    evidence = {f: f.stat().st_mtime_ns for f in Path("run/evidence").rglob("*") if f.is_file()}
    Path("weights.safetensors").unlink()  # the folder is enough
    again = cli("audit", "run", "--json")
    assert again.code == first.code
    summaries = [json.loads(result.out) for result in (first, again)]
    assert summaries[0] == summaries[1]
    shown = cli("audit", "run")
    assert shown.code == first.code
    for words in ("discrepancy", "gradient-truth", "not-run", "corrected robust accuracy", "next:"):
        assert words in shown.out
    after = {f: f.stat().st_mtime_ns for f in Path("run/evidence").rglob("*") if f.is_file()}
    assert after == evidence


def test_the_missing_probes_are_run(cli, files: Path) -> None:
    bare = cli(*CHECKPOINT, *PGD, "--checks", "none", "--out", "run", "--json")
    assert (bare.code, json.loads(bare.out)["verdict"]) == (3, "inconclusive")
    assert json.loads(bare.out)["check_forwards"] == 0
    fast = cli("audit", "run", "--checks", "fast", "--allow-code", "--json")
    assert "checks fast: about" in fast.err
    assert json.loads(fast.out)["check_forwards"] > 0
    assert json.loads(fast.out)["verdict"] != "inconclusive"
    assert fast.code == EXIT_CODES[json.loads(fast.out)["verdict"]]


def advised(result: Result) -> list[list[str]]:
    """The commands that an answer says to run next, as a shell takes them apart."""
    start = "next: flatguard "
    lines = [line for line in result.out.splitlines() if line.startswith(start)]
    return [shlex.split(line.removeprefix(start)) for line in lines]


def test_advised_probes_run_where_the_spec_names_code(cli, files: Path) -> None:
    bare = cli(*CHECKPOINT, *PGD, "--checks", "none", "--out", "a run")
    fast, *_ = advised(bare)
    assert fast == ["audit", "a run", "--checks", "fast", "--allow-code"]
    for name in ("report.html", "report.json", "report.junit.xml", "report.md", "summary.json"):
        text = Path("a run", name).read_text(encoding="utf-8").replace("\\", "")
        assert "audit RUN --checks fast" in text
        assert text.count("audit RUN --checks") == text.count(" --allow-code"), name
    assert bare.out.count(TRUST) == 1
    assert all(Path("a run", name).read_text("utf-8").replace("&#39;", "'").count(TRUST) == 1
               for name in ("report.html", "report.md"))  # fmt: skip
    done = cli(*fast)
    assert done.code in JUDGED
    assert "price of checks" in done.out
    assert advised(done) == [["audit", "a run", "--checks", "standard", "--allow-code"]]


def test_advice_without_code_asks_for_no_consent(cli) -> None:
    bare = cli("evaluate", "--model", "demo", *PGD, "--n-examples", "4", "--checks", "none")
    assert advised(bare)
    assert all("--allow-code" not in words for words in advised(bare))
    assert TRUST not in bare.out


def test_merged_shards_are_judged_as_advised(cli, files: Path) -> None:
    for number in (1, 2):
        cli(*CHECKPOINT, *PGD, "--batch-size", "6", "--out", str(number), "--shard", f"{number}/2")
    merged = cli("merge", "1", "2", "--out", "both of them")
    assert merged.code == 0
    assert cli(*advised(merged)[0]).code in JUDGED


def test_a_surrogate_by_name(cli, files: Path) -> None:
    """The demo's model knows ten classes; this data has four."""
    cli(*CHECKPOINT, *PGD, "--out", "run", "--surrogate", "demo")
    finding = flatguard.audit("run").findings[6]
    assert (finding.check, finding.status) == ("surrogate-transfer", "not-run")
    assert "is right on only" in finding.summary


BAD_AUDITS = {
    "no run": (["audit", "nowhere"], "is no run folder"),
    "a level that is none": (["audit", "run", "--checks", "thorough"], "expected one of none"),
    "a tolerance of 2": (["audit", "run", "--tolerance", "2"], "less than 1"),
    "other weights": (
        ["audit", "run", "--checks", "fast", "--allow-code"],
        "has other weights now",
    ),
    "code in the spec": (["audit", "run", "--checks", "fast"], "names code that would run here"),
    "damaged evidence": (["audit", "run"], "is damaged"),
}


@pytest.mark.parametrize("case", BAD_AUDITS)
def test_a_bad_audit_is_one_line_and_exit_2(case: str, cli, files: Path) -> None:
    cli(*CHECKPOINT, *PGD, "--out", "run", "--checks", "fast" if "damaged" in case else "none")
    if case == "other weights":
        state = {name: value + 1.0 for name, value in tiny().state_dict().items()}
        save_file(state, files / "weights.safetensors")
    if case == "damaged evidence":
        file = files / "run" / "evidence" / "probes" / "twins" / "attempts.parquet"
        file.write_bytes(file.read_bytes()[:-1])
    arguments, expected = BAD_AUDITS[case]
    result = cli(*arguments)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert expected in result.err


def test_nothing_judges_a_run_with_another_tolerance_unasked(cli, files: Path) -> None:
    def judged() -> tuple[float, float]:
        kept = [json.loads(Path(f"run/{name}.json").read_text()) for name in ("verdict", "summary")]
        return kept[0]["tolerance"], kept[1]["tolerance"]

    cli(*CHECKPOINT, *PGD, "--out", "run", "--tolerance", 0.25)
    assert judged() == (0.25, 0.25)
    landscape = ["geometry", "landscape", "run", "--directions", 1, "--steps", 1, "--allow-code"]
    assert cli(*landscape).code == 0
    assert judged() == (0.25, 0.25)
    assert cli("audit", "run").code in JUDGED
    assert judged() == (0.25, 0.25)
    cli("audit", "run", "--tolerance", 0.5)
    assert judged() == (0.5, 0.5)
    for again in (
        ["audit", "run", "--checks", "standard", "--allow-code"],
        [*landscape, "--restarts", 2],
        ["evaluate", "--resume", "run", "--allow-code"],
        ["report", "run"], ["compare", "run", "run"],
    ):  # fmt: skip
        assert cli(*again).code in JUDGED
        assert judged() == (0.5, 0.5), again
    Path("run/verdict.json").unlink()
    assert flatguard.audit("run").tolerance == 0.25
