"""The default folder of a run: its name says what was run, and it is always a new one."""

from pathlib import Path

from flatguard.request import make_request
from flatguard.runs.naming import default_folder


def test_default_folders_do_not_collide(tmp_path: Path) -> None:
    spec = make_request(model="a/b/weights.pt", attack="torchattacks:PGD")
    first = default_folder(spec)
    assert first.parent == Path("reports")
    assert first.name.endswith("weights-torchattacks-PGD")
    first.mkdir(parents=True)
    assert default_folder(spec) != first
