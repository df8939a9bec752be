"""Judging reads evidence only: it works where no model can be loaded, run or attacked."""

import json
import subprocess
import sys

import torch
from support.check_contexts import context_of, trained

from flatguard.checks.evidence import Evidence
from flatguard.checks.gathering import gather_evidence
from flatguard.checks.verdict import judge
from flatguard.execution.progress import Silent

JUDGE = """
import sys

BLOCKED = (
    "flatguard.evaluation", "flatguard.execution.context", "flatguard.execution.attempt",
    "flatguard.recording.recorder", "flatguard.targets.checkpoint", "foolbox", "torchattacks",
    "pyautoattack", "robustbench",
)


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if any((name + ".").startswith(f"{blocked}.") for blocked in BLOCKED):
            raise ImportError(f"{name} is blocked: it loads, runs or attacks the model")


sys.meta_path.insert(0, Blocked())
import torch


def refuse(module, *inputs):
    raise RuntimeError("a model runs")


torch.nn.Module.__call__ = refuse
from flatguard.checks.evidence import Evidence
from flatguard.checks.verdict import judge
from flatguard.runs.run import load_run

print(judge(Evidence.of(load_run(sys.argv[1]))).model_dump_json())
"""


def test_a_stored_run_is_judged_without_the_model() -> None:
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 4
    weak = "foolbox:LinfAdditiveUniformNoiseAttack"
    context = context_of(trained(images, labels), images, labels, weak, eps="32/255")
    gather_evidence(context.evaluation, context.run, "standard", [], Silent())
    command = [sys.executable, "-c", JUDGE, str(context.run.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = judge(Evidence.of(context.run))
    assert json.loads(done.stdout) == json.loads(expected.model_dump_json())
    assert {finding.status for finding in expected.findings} > {"not-run"}
