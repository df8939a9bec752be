"""The main things, each once, as a stranger's machine would run them: processes of their own.

`.ci/run` runs this folder in the newest environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from support import digits

Result = subprocess.CompletedProcess[str]

FEW = ["--n-examples", "2", "--checks", "none", "--eps", "2/255", "--norm", "Linf"]
UNDECIDED = 3
"""Without checks a number is inconclusive."""


def process(*typed: str, **environ: str) -> Result:
    return subprocess.run(
        typed, capture_output=True, text=True, env=os.environ | environ, timeout=600
    )


def flatguard(*typed: str, **environ: str) -> Result:
    return process(sys.executable, "-m", "flatguard", *typed, **environ)


def evaluated(*typed: str, **environ: str) -> Result:
    done = flatguard("evaluate", *typed, *FEW, "--out", "run", **environ)
    assert done.returncode == UNDECIDED, done.stderr
    assert (Path("run") / "report.html").stat().st_size > 10_000
    return done


def images(size: int) -> str:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    np.savez("images.npz", images=pixels, labels=np.array([0, 1]))
    return "images.npz"


def saved(model: Any, file: Path) -> None:
    file.parent.mkdir(parents=True)
    torch.save(model.state_dict(), file)


def test_the_doctor_finds_nothing_broken() -> None:
    done = flatguard("doctor")
    assert done.returncode == 0, done.stdout
    assert "nothing is broken" in done.stdout


def test_robustbench_is_listed() -> None:
    done = flatguard("models")
    assert done.returncode == 0, done.stderr
    assert "Carmon2019Unlabeled" in done.stdout


def test_an_architecture_of_robustbench_under_torchattacks() -> None:
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    torch.manual_seed(0)
    entry = model_dicts[BenchmarkDataset("cifar10")][ThreatModel("Linf")]["Wong2020Fast"]
    saved(entry["model"](), Path("models/cifar10/Linf/Wong2020Fast.pt"))
    done = evaluated(
        "--model", "Wong2020Fast", "--attack", "torchattacks:FGSM", "--dataset", images(32)
    )
    assert "10 classes" in done.stdout


def test_a_torchvision_model_under_autoattack() -> None:
    from torchvision import models

    torch.manual_seed(0)
    weights = models.get_model_weights("squeezenet1_1").DEFAULT
    name = weights.url.rpartition("/")[2]
    saved(models.squeezenet1_1(), Path("cache/hub/checkpoints") / name)
    done = evaluated(
        "--model", "torchvision:squeezenet1_1", "--attack", "apgd-ce", "--dataset", images(64),
        "--attack-arg", "n_restarts=1", "--attack-arg", "n_iter=2",
        TORCH_HOME=str(Path("cache").resolve()),
    )  # fmt: skip
    assert "1000 classes" in done.stdout


def test_a_torchvision_model_without_weights_says_what_is_missing() -> None:
    done = flatguard(
        "evaluate", "--model", "torchvision:resnet18", "--attack", "apgd-ce", "--dataset",
        images(64), *FEW, TORCH_HOME=str(Path("empty").resolve()),
    )  # fmt: skip
    assert done.returncode == 2
    assert "no pretrained weights for torchvision:resnet18" in done.stderr.splitlines()[-1]


def test_a_timm_model_under_foolbox() -> None:
    import timm

    torch.manual_seed(0)
    name = "mobilenetv3_small_050"
    hub = timm.get_pretrained_cfg(name).hf_hub_id.replace("/", "--")
    repository = Path("hub") / "hub" / f"models--{hub}"
    snapshot = repository / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0")
    save_file(timm.create_model(name).state_dict(), snapshot / "model.safetensors")
    done = evaluated(
        "--model", f"timm:{name}", "--attack", "foolbox:LinfFastGradientAttack", "--dataset",
        images(64), HF_HOME=str(Path("hub").resolve()),
    )  # fmt: skip
    assert "1000 classes" in done.stdout


def test_the_plugin_and_the_report(digits_files: Path) -> None:
    Path("test_release.py").write_text(
        f"""
def test_release(flatguard):
    judged = flatguard.check(
        model={str(digits_files / "digits.safetensors")!r}, attack="torchattacks:PGD",
        arch={f"{digits.__file__}:digits_net"!r}, dataset={str(digits_files / "digits.npz")!r},
        eps={digits.EPS!r}, attack_args={{"steps": 20, "alpha": 0.02}},
        allow=["black-box", "more-budget", "surrogate-transfer"],
    )
    print("RUN", judged.run.path)
"""
    )
    done = process(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    run = next(line.split()[-1] for line in done.stdout.splitlines() if "RUN" in line)
    assert flatguard("audit", run).returncode == 0
    assert flatguard("report", run).returncode == 0
    assert "</html>" in (Path(run) / "report.html").read_text("utf-8")
