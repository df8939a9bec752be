"""The basins of a run, block by block, against the table of its calls."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.reports import judged

from flatguard.checks.basins import basins_of
from flatguard.cli.app import main
from flatguard.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return judged(tmp_path_factory.mktemp("basins") / "run")


def test_against_the_trajectory(run: Run) -> None:
    epsilon = 0.05
    found = basins_of(run, epsilon).table.set_index("sample")
    samples = run.samples.set_index("sample")
    table = run.trajectory
    table = table[table["sample"].notna() & ~table["bookkeeping"]]
    right = samples.index[samples["clean_correct"]]
    assert set(found.index) == set(table["sample"].astype(int)) & set(right)
    for sample, row in found.iterrows():
        own = table[table["sample"] == sample].sort_values("call")
        outside = own["loss"] - samples.loc[sample, "clean_loss"] > epsilon
        assert row["left"] == outside.any()
        wanted = own.loc[outside, "linf"].min() if outside.any() else own["linf"].max()
        assert row["width"] == pytest.approx(wanted, rel=1e-6)
        assert row["peak"] == int(np.argmax(own["log_kappa"].to_numpy()))
        wrong = (own["prediction"] != samples.loc[sample, "label"]).to_numpy()
        assert row["flip"] == wrong.argmax() if wrong.any() else np.isnan(row["flip"])


def test_a_width_that_is_not_known_is_missing(run: Run) -> None:
    widths = basins_of(run, 0.05).width_quartiles
    assert all(width is not None and width > 0 for width in widths)
    assert basins_of(run, 1e9).width_quartiles == (None, None, None)


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def test_the_command_says_what_is_left_robust(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "geometry", "basin", str(run.path), "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["samples"] == int(run.samples["clean_correct"].sum())
    assert facts["left_robust"] == pytest.approx(1 - facts["left_their_basin"] / facts["samples"])
    assert len(facts["refuted_samples"]) == facts["left_their_basin"]
    _, wide, _ = typed(capsys, "geometry", "basin", str(run.path), "--epsilon", "1e9", "--json")
    assert json.loads(wide)["left_robust"] == 1.0
    first = min(facts["refuted_samples"])
    said = typed(capsys, "geometry", "basin", str(run.path))[1]
    assert f"refuted, first at image {first}\n" in said


def test_bad_input_is_one_line(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for wrong, said in (
        (["--epsilon", "-1"], "--epsilon: expected a number of at least 0"),
        (["--delta", "far"], "--delta: expected a number such as 8/255"),
    ):
        code, out, err = typed(capsys, "geometry", "basin", str(run.path), *wrong)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err
    assert typed(capsys, "geometry", "basin", str(tmp_path / "none"))[0] == 2
