"""The plugin in real inner runs: text and exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import detectors, digits

import flatguard
from flatguard.checks.registry import check_names
from flatguard.checks.verdict import Verdict, verdict_of
from flatguard.gate.cache import RunCache
from flatguard.gate.config import config_of
from flatguard.gate.gate import pass_through

OPTIONAL = ["black-box", "more-budget", "surrogate-transfer"]
"""What the fast level does not run."""

FAILED = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory, digits_files: Path) -> Path:
    """Runs by content, for all tests that do not ask whether something was attacked.

    An inner run in this process forgets what it imports; pyarrow cannot be imported twice.
    """
    folder = tmp_path_factory.mktemp("cache")
    pass_through(config_of(release(digits_files)), RunCache(folder, "before"))
    return folder


def release(files: Path) -> dict[str, Any]:
    return {
        "model": str(files / "digits.safetensors"),
        "arch": f"{digits.__file__}:digits_net",
        "dataset": str(files / "digits.npz"),
        "attack": "torchattacks:PGD",
        "attack_args": {"steps": 20, "alpha": 0.02},
        "eps": digits.EPS,
    }


@pytest.fixture
def inner(pytester: pytest.Pytester, digits_files: Path, kept: Path) -> Inner:
    return Inner(pytester, digits_files, kept)


class Inner:
    """Inner runs in a folder with `release.yaml`."""

    def __init__(self, pytester: pytest.Pytester, files: Path, kept: Path):
        self.pytester, self._files, self._kept = pytester, files, kept

    def config(self, gate: dict[str, Any] | None = None, **changes: Any) -> None:
        base = {**release(self._files), "gate": {"allow": OPTIONAL, **(gate or {})}}
        text = yaml.safe_dump({**base, **changes}, sort_keys=False)
        (self.pytester.path / "release.yaml").write_text(text)

    def run(self, *arguments: str, cache: Path | None = None) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess(
            f"--flatguard-cache={cache or self._kept}", "-p", "no:randomly", *arguments
        )

    def gated(self, *arguments: str, cache: Path | None = None) -> pytest.RunResult:
        return self.run("--flatguard-config=release.yaml", *arguments, cache=cache)


def judged(result: pytest.RunResult) -> Verdict:
    """The verdict on the run behind an inner run whose gate is shut.

    Its numbers are those of a network that was trained here, and differ between processors.
    """
    (folder,) = {
        line.partition(": ")[2]
        for line in result.outlines
        if line.startswith(("attacked now: ", "taken from the cache and judged again: "))
    }
    return verdict_of(flatguard.load_run(folder))


def test_pass(inner: Inner) -> None:
    inner.config({"min_robust_accuracy": 0.6})
    result = inner.gated("-v")
    assert result.ret == 0
    result.assert_outcomes(passed=len(check_names()) + 4)
    result.stdout.fnmatch_lines([
        "release.yaml::finding?discrepancy? PASSED*",
        "release.yaml::finding?basin? PASSED*",
        "release.yaml::threshold?conclusive? PASSED*",
        "release.yaml::threshold?max_overestimate? PASSED*",
        "release.yaml::threshold?no_masking? PASSED*",
        "release.yaml::threshold?min_robust_accuracy? PASSED*",
    ])  # fmt: skip


def test_a_floor_that_is_not_reached(inner: Inner) -> None:
    inner.config({"min_robust_accuracy": 0.65})
    result = inner.gated()
    assert result.ret == FAILED
    result.assert_outcomes(passed=len(check_names()) + 3, failed=1)
    verdict = judged(result)
    share, (low, high) = verdict.corrected_robust_accuracy, verdict.corrected_interval
    assert low < 0.65 < share <= verdict.robust_accuracy
    result.stdout.fnmatch_lines([
        f"release.yaml: the corrected robust accuracy is {share:.1%}, at least {low:.1%} with 95% "
        "confidence; 65.0% is required; evaluate more samples",
        f"  measured   {share:.1%} of 200 samples survive the attack and all checks (95% interval "
        f"{low:.1%} to {high:.1%}); {verdict.robust_accuracy:.1%} survive torchattacks:PGD alone",
        "  threshold  min_robust_accuracy: 65.0%, for the lower end of the interval",
        f"  evidence   consistent: no evidence against {verdict.robust_accuracy:.1%}*",
        "  report     *",
    ])  # fmt: skip


def test_masked(inner: Inner) -> None:
    inner.config(logit_scale=100.0)
    result = inner.gated()
    assert result.ret == FAILED
    result.assert_outcomes(passed=len(check_names()) - 2, failed=5)
    verdict = judged(result)
    reported, share = verdict.robust_accuracy, verdict.corrected_robust_accuracy
    assert reported > 0.85
    assert share < 0.75
    result.stdout.fnmatch_lines([
        "release.yaml: the check discrepancy fails: *",
        "release.yaml: gradients are masked by saturation: the evidence refutes the reported "
        f"{reported:.1%}",
        "  threshold  no_masking: true",
        f"  evidence   masked by saturation: {reported:.1%} was reported, at most {share:.1%} is "
        "true",
        "  next       divide the logits by a temperature*",
    ])  # fmt: skip


def test_overestimated(inner: Inner) -> None:
    """One tiny step from the clean image: nothing is masked, the attack is weak."""
    inner.config(attack_args={"steps": 1, "alpha": 0.001, "random_start": False})
    result = inner.gated()
    assert result.ret == FAILED
    result.assert_outcomes(passed=len(check_names()) + 2, failed=1)
    verdict = judged(result)
    reported, share = verdict.robust_accuracy, verdict.corrected_robust_accuracy
    assert reported > 0.9
    assert share < 0.75
    low, high = verdict.overestimate_interval
    result.stdout.fnmatch_lines([
        f"release.yaml: the reported robust accuracy is too high by {verdict.overestimate:.1%} of "
        "all samples; at most 5.0% is accepted",
        f"  measured   {reported:.1%} was reported, at most {share:.1%} is true (95% interval of "
        f"the difference {low:.1%} to {high:.1%})",
        "  threshold  max_overestimate: 5.0%",
        "  next       the attack is too weak*",
    ])  # fmt: skip


def test_a_detector(inner: Inner, digits_files: Path) -> None:
    fitted = detectors.detector(digits_files, alpha=0.3, side="high")
    fitted.save(inner.pytester.path / "d.json", adaptive=detectors.ADAPTIVE)
    inner.config({"min_detected": 0.8, "max_false_positives": 0.2}, detector="d.json")
    result = inner.gated("--junitxml=found.xml")
    assert result.ret == FAILED
    result.assert_outcomes(passed=len(check_names()) + 4, failed=1)
    result.stdout.fnmatch_lines([
        "release.yaml: *% of clean images are flagged, up to *% with 95% confidence; at most *",
        "  measured   * of 200 clean images (95% interval *% to *%), 0 without log κ",
        "  threshold  max_false_positives: 20.0%, for the upper end of the interval",
    ])  # fmt: skip
    cases = (inner.pytester.path / "found.xml").read_text("utf-8")
    assert 'name="threshold[min_detected]"' in cases
    assert 'name="threshold[max_false_positives]"' in cases
    inner.config({"min_detected": 0.8})
    missing = inner.gated()
    assert missing.ret == pytest.ExitCode.USAGE_ERROR
    missing.stderr.fnmatch_lines(["*flatguard: gate.min_detected needs a detector: add a key*"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"eps": 8}, "was 8/255 meant?"),
        ({"eps": 128, "norm": "L2", "attack": "foolbox:L2PGD", "attack_args": {}}, "128/255"),
    ],
)
def test_a_radius_in_another_unit_fails_every_item(
    inner: Inner, changes: dict[str, Any], text: str
) -> None:
    inner.config(**changes)
    result = inner.gated()
    assert result.ret == FAILED
    result.assert_outcomes(failed=len(check_names()) + 3)
    result.stdout.fnmatch_lines([f"*--eps *images lie in ?0, 1?*{text}*"])


@pytest.mark.parametrize(("eps", "text"), [(0, "positive"), (".nan", "expected a")])
def test_a_radius_that_is_none_is_a_wrong_config(inner: Inner, eps: object, text: str) -> None:
    inner.config(eps=eps)
    result = inner.gated()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line.strip()]
    assert text in line


def test_a_model_that_is_no_use_shuts_a_gate_that_asks_for_nothing(
    inner: Inner, digits_files: Path
) -> None:
    """Labels in another order: no number of it means anything."""
    with np.load(digits_files / "digits.npz") as stored:
        np.savez(
            inner.pytester.path / "shifted.npz",
            images=stored["images"],
            labels=(stored["labels"] + 1) % 10,
        )
    inner.config({"allow": [*OPTIONAL, "inconclusive"]}, dataset="shifted.npz")
    result = inner.gated()
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["release.yaml: the set-up is in doubt*one too high*"])


def test_inconclusive_unless_allowed(inner: Inner) -> None:
    inner.config({"allow": list(check_names())}, checks="none")
    result = inner.gated()
    assert result.ret == FAILED
    result.assert_outcomes(passed=len(check_names()) + 2, failed=1)
    result.stdout.fnmatch_lines([
        "release.yaml: inconclusive: the evidence neither supports nor refutes "
        f"{judged(result).robust_accuracy:.1%}",
        "  threshold  the verdict must be conclusive, unless `allow` has inconclusive",
    ])  # fmt: skip
    inner.config({"allow": ["inconclusive", *check_names()]}, checks="none")
    assert inner.gated().ret == 0
    floor = {"allow": ["inconclusive", *check_names()], "min_robust_accuracy": 0.1}
    inner.config(floor, checks="none")
    shut = inner.gated()
    shut.assert_outcomes(passed=len(check_names()) + 3, failed=1)
    shut.stdout.fnmatch_lines([
        "release.yaml: the verdict is inconclusive, so it is not known whether 10.0% is reached"
    ])  # fmt: skip


def test_not_run_unless_allowed_by_name(inner: Inner) -> None:
    inner.config({"allow": ["more-budget", "surrogate-transfer", "inconclusive"]})
    result = inner.gated()
    assert result.ret == FAILED
    result.assert_outcomes(passed=len(check_names()) + 2, failed=1)
    result.stdout.fnmatch_lines([
        "release.yaml: the check black-box did not run, so it has not passed: Square, a "
        "search without gradients, was not run: not part of the checks that ran",
        "  threshold  it must run, unless `allow` names it: allow: ?black-box?",
        "  next       flatguard audit * --checks standard --allow-code",
    ])  # fmt: skip


def test_a_budget_that_ends_is_inconclusive(inner: Inner, tmp_path: Path) -> None:
    inner.config(batch_size=50)
    result = inner.gated("--flatguard-max-forwards=2500", cache=tmp_path / "one")
    assert result.ret == FAILED
    share = judged(result).robust_accuracy
    result.stdout.fnmatch_lines([
        f"release.yaml: inconclusive: the evidence neither supports nor refutes {share:.1%}",
        "  evidence   inconclusive: the budget of 2,500 forwards (--max-forwards) was spent after "
        f"100 of 200 samples, so {share:.1%} is neither supported nor refuted",
    ])  # fmt: skip
    nothing = inner.gated("--flatguard-max-forwards=45", cache=tmp_path / "two")
    assert nothing.ret == FAILED
    nothing.assert_outcomes(failed=len(check_names()) + 3)
    nothing.stdout.fnmatch_lines([
        "release.yaml: inconclusive: the budget of 45 forwards (--max-forwards) was spent before "
        "the first 50 samples were attacked; the incomplete run*"
    ])  # fmt: skip


def entries(cache: Path) -> dict[str, int]:
    """When each run was made."""
    return {
        file.parents[2].name: file.stat().st_mtime_ns
        for file in cache.glob("*/run/evidence/manifest.json")
    }


def test_an_unchanged_release_is_judged_again_and_not_attacked_again(
    inner: Inner, tmp_path: Path
) -> None:
    inner.config(n_examples=50)
    first = inner.gated("-rP", cache=tmp_path)
    first.stdout.fnmatch_lines(["attacked now: *"])
    made = entries(tmp_path)
    inner.config(
        {"min_robust_accuracy": 0.99}, n_examples=50
    )  # a threshold is no part of the content
    again = inner.gated("-rA", cache=tmp_path)
    assert again.ret == FAILED
    again.stdout.fnmatch_lines(["taken from the cache and judged again: *"])
    again.stdout.no_fnmatch_line("attacked now: *")
    assert entries(tmp_path) == made
    inner.config(n_examples=50, seed=1)
    inner.gated("-rP", cache=tmp_path).stdout.fnmatch_lines(["attacked now: *"])
    assert len(entries(tmp_path)) == 2
    inner.config(n_examples=50)
    fresh = inner.gated("-rP", "--flatguard-fresh", cache=tmp_path)
    fresh.stdout.fnmatch_lines(["attacked now: *"])
    (key,) = made
    assert entries(tmp_path)[key] != made[key]


def test_one_attack_for_all_workers(
    inner: Inner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one summary: what the workers found goes to the process that started them."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    inner.config(logit_scale=100.0)
    result = inner.pytester.runpytest_subprocess(
        "--flatguard-config=release.yaml", f"--flatguard-cache={tmp_path / 'cache'}", "-n", "2",
        "-rA",
    )  # fmt: skip
    assert result.ret == FAILED
    result.assert_outcomes(passed=len(check_names()) - 2, failed=5)
    assert {line[:5] for line in result.outlines if line.startswith("[gw")} == {"[gw0]", "[gw1]"}
    assert len(entries(tmp_path / "cache")) == 1
    now = {line for line in result.outlines if line.startswith("attacked now: ")}
    waited = {line for line in result.outlines if line.startswith("taken from the cache")}
    assert len(now) == len(waited) == 1
    assert sum(line.startswith("::error ") for line in result.outlines) == 5
    assert (tmp_path / "summary.md").read_text("utf-8").count("###") == 1


def test_off(inner: Inner) -> None:
    inner.config()
    off = inner.pytester.runpytest_subprocess("-p", "no:flatguard", "--flatguard-config=x")
    assert off.ret == pytest.ExitCode.USAGE_ERROR
    off.stderr.fnmatch_lines(["*unrecognized arguments: --flatguard-config=x"])
    inner.pytester.makepyfile("def test_it(flatguard): pass")
    gone = inner.pytester.runpytest_inprocess("-p", "no:flatguard")
    gone.stdout.fnmatch_lines(["*fixture 'flatguard' not found"])


def test_an_unrelated_run_imports_no_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("flatguard")
            heavy = {"torch", "numpy", "pandas", "pydantic", "yaml", "filelock", "scipy"}
            assert not heavy & set(sys.modules)
        """
    )
    # What else is installed here (hypothesis, anyio) may import more than flatguard does.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "flatguard.gate.pytest_plugin", "-q"]
    text = pytester.path / "test_an_unrelated_run_imports_no_torch.py"
    text.write_text(text.read_text().replace('"flatguard")', '"flatguard.gate.pytest_plugin")'))
    done = subprocess.run(command, cwd=pytester.path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()


def test_the_entry_point_is_the_plugin(pytestconfig: pytest.Config) -> None:
    plugin = pytestconfig.pluginmanager.get_plugin("flatguard")
    assert plugin is not None
    assert plugin.__name__ == "flatguard.gate.pytest_plugin"


BAD = {
    "eps: 8/255\natack: apgd-ce\n": "release.yaml:2: atack: there is no such key; nearest: attack",
    "gate:\n\n  no_maskin: true": "release.yaml:3: gate.no_maskin: there is no such key; "
    "nearest: no_masking",
    "seed: -1": "release.yaml:1: seed: Input should be greater than or equal to 0, got -1",
    "gate: {allow: [basins]}": "release.yaml:1: gate.allow: *nearest: basin; *",
    "a: [": "release.yaml:1: not valid YAML: *",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_config_names_its_line_and_key(inner: Inner, text: str) -> None:
    (inner.pytester.path / "release.yaml").write_text(text)
    result = inner.gated()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: flatguard: {BAD[text]}"])
    inner.pytester.makepyfile("def test_it(flatguard): flatguard.check('release.yaml')")
    used = inner.run()
    assert used.ret == FAILED
    used.stdout.fnmatch_lines([f"release.yaml: {BAD[text]}"])


def test_the_fixture(inner: Inner) -> None:
    inner.config()
    inner.pytester.makepyfile(
        """
        def test_release(flatguard):
            judged = flatguard.check("release.yaml", min_robust_accuracy=0.6)
            assert judged.verdict.verdict == "consistent"

        def test_masked(flatguard):
            flatguard.check("release.yaml", logit_scale=100.0)
        """
    )
    result = inner.run()
    assert result.ret == FAILED
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([
        "release.yaml: the gate is shut",
        "finding?discrepancy? the check discrepancy fails: *",
        "threshold?no_masking? gradients are masked by saturation: the evidence refutes *",
    ])  # fmt: skip
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_the_fixture_takes_a_module_and_tensors(inner: Inner) -> None:
    """The same weights behind another forward pass are another content."""
    inner.pytester.makepyfile(
        f"""
        import sys
        sys.path.insert(0, {str(Path(digits.__file__).parents[1])!r})
        import pytest, torch
        from safetensors.torch import load_file
        from support import digits

        class Rounded(torch.nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net = net
            def forward(self, x):
                return self.net((x * 3).round() / 3 + 0.0 * x)

        @pytest.mark.parametrize("wrap", [lambda net: net, Rounded])
        def test_release(flatguard, wrap):
            net = digits.digits_net()
            net.load_state_dict(load_file({str(inner._files / "digits.safetensors")!r}))
            images, labels = digits.digits()
            judged = flatguard.check(
                model=wrap(net.eval()), data=(images[1000:1060], labels[1000:1060]),
                attack="torchattacks:PGD", attack_args={{"steps": 20, "alpha": 0.02}}, eps=0.1,
                allow={OPTIONAL!r},
            )
        """
    )
    result = inner.run("-rA")
    result.assert_outcomes(passed=1, failed=1)
    assert result.stdout.str().count("attacked now: ") == 2
    result.stdout.fnmatch_lines(["*unavailable-gradient*"])


def test_mistakes_are_one_line_each(inner: Inner) -> None:
    (inner.pytester.path / "wrong.yaml").write_text("tolerance: 0.1\n")
    inner.pytester.makepyfile(
        """
        def test_kind(flatguard): flatguard.check({"a": 1})
        def test_key(flatguard): flatguard.check("release", min_robust_acuracy=0.4)
        def test_name(flatguard): flatguard.check("wrong.yaml")
        def test_tolerance(flatguard): flatguard.check(tolerance=0.1)
        """
    )
    result = inner.run()
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines([
        "flatguard.check: expected a config's path or name, got dict; *",
        "release: min_robust_acuracy: there is no such key; nearest: gate.min_robust_accuracy",
        "wrong.yaml: wrong.yaml:1: tolerance: there is no such key; nearest: gate.max_overestimate",
        "flatguard.check: tolerance: there is no such key; nearest: gate.max_overestimate",
    ])  # fmt: skip
    for trace in ("*Traceback*", "*validation error*", "*The above exception*"):
        result.stdout.no_fnmatch_line(trace)


@pytest.mark.parametrize(("session", "own", "tighter"), [(45, 10**6, 45), (10**6, 45, 45)])
def test_the_tighter_limit_wins(
    inner: Inner, tmp_path: Path, session: int, own: int, tighter: int
) -> None:
    inner.config(batch_size=50)
    inner.pytester.makepyfile(
        f"def test_it(flatguard): flatguard.check('release.yaml', max_forwards={own})"
    )
    result = inner.run(f"--flatguard-max-forwards={session}", cache=tmp_path)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"release.yaml: inconclusive: the budget of {tighter} forwards*"])


def test_a_config_beside_the_ini_file(inner: Inner, tmp_path: Path) -> None:
    inner.config(batch_size=50)
    inner.pytester.makeini("[pytest]\nflatguard_config = release.yaml")
    below = inner.pytester.mkdir("below")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=below, capture_output=True, text=True)
    assert "threshold[conclusive]" in done.stdout, done.stdout + done.stderr


def test_no_model(inner: Inner) -> None:
    inner.pytester.makepyfile("def test_it(flatguard): flatguard.check('release')")
    result = inner.run()
    result.stdout.fnmatch_lines(["release: no model is named: add a key `model` to the config"])


def test_ini_options(inner: Inner, tmp_path: Path) -> None:
    inner.config(batch_size=50)
    inner.pytester.makeini(
        f"""
        [pytest]
        flatguard_config = release.yaml
        flatguard_cache = {tmp_path}
        flatguard_max_forwards = 45
        """
    )
    result = inner.pytester.runpytest_inprocess()
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*inconclusive: the budget of 45 forwards*"])
    assert list(tmp_path.glob("*/entry.json"))


def test_github(inner: Inner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One annotation for each outcome that shuts the gate, and one summary."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    inner.config(logit_scale=100.0)
    result = inner.gated()
    assert result.ret == FAILED
    lines = [line for line in result.outlines if line.startswith("::error ")]
    assert len(lines) == 5
    reported = f"{judged(result).robust_accuracy:.1%}"
    assert lines[-1].startswith(
        "::error title=release.yaml threshold[no_masking]::gradients are masked by saturation: "
        f"the evidence refutes the reported {reported}25%0A  measured "
    )
    text = (tmp_path / "summary.md").read_text("utf-8")
    assert text.startswith(f"### release.yaml: masked by saturation: {reported} was reported")
    assert text.count("###") == 1
    assert "| ❌ failed | `threshold[no_masking]` | gradients are masked by saturation" in text
    entry = json.loads(next(inner._kept.glob("*/entry.json")).read_text("utf-8"))
    assert {"weights", "code", "data", "request", "versions"} <= set(entry["identity"])


def test_a_conftest_that_switches_gradients_off(inner: Inner) -> None:
    """The gate stays shut: two queries of Square are no attack, and the checks still see it."""
    inner.config(attack="square", attack_args={"n_queries": 2}, norm="Linf", n_examples=60)
    inner.pytester.makeconftest("import torch\ntorch.set_grad_enabled(False)\n")
    result = inner.pytester.runpytest_subprocess(
        "--flatguard-config=release.yaml", "--flatguard-cache=cache", "-p", "no:randomly", "-n", "2"
    )
    assert result.ret == FAILED
    result.assert_outcomes(failed=1, passed=len(check_names()) + 2)
    result.stdout.fnmatch_lines(["FAILED release.yaml::threshold?max_overestimate?*"])
