"""A script without `if __name__ == "__main__":` is named, in one line and without tracebacks."""

import re
import subprocess
import sys
from pathlib import Path

CALL = """
import sys, torch, flatguard
from torch import nn
from flatguard.execution.executors import Processes
torch.manual_seed(0)
images, model = torch.rand(4, 3, 4, 4), nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).eval()
run = flatguard.evaluate(model, "torchattacks:FGSM", data=(images, torch.arange(4)), norm="Linf",
                         eps="1/255", checks="none", out=sys.argv[1] + "-earlier")
def call(out):
    try:
        run = flatguard.evaluate(
            model, "torchattacks:FGSM", data=(images, torch.arange(4)), norm="Linf", eps="1/255",
            checks="none", batch_size=2, executor=Processes(2), out=out)
        print("complete", run.complete)
    except flatguard.FlatguardError as error:
        print(type(error).__name__, error)
"""


def test_a_script_and_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"{CALL}\ncall(sys.argv[1])\n")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert re.fullmatch(
        r'UsageError every worker runs this script again.*: if __name__ == "__main__":\n',
        done.stdout,
    )
