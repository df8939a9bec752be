"""EvaluationRequest: validated with one line, frozen, and exact about its radius."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from flatguard.errors import UntrustedCodeError, UsageError
from flatguard.request import EvaluationRequest, derive_seed, make_request, options


def test_the_radius_is_kept_as_typed_and_parsed_exactly() -> None:
    spec = make_request(model="m", attack="a", norm="Linf", eps="8/255")
    assert spec.eps == "8/255"
    assert spec.budget().eps == 8 / 255
    again = EvaluationRequest.model_validate_json(spec.model_dump_json())
    assert again == spec


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("eps", "-8/255", "--eps: expected a positive number such as 8/255, got '-8/255'"),
        ("eps", "big", "--eps: expected a number such as 8/255 or 0.031, got 'big'"),
        ("norm", "Linfty", "--norm: Input should be 'Linf'"),
        ("n_examples", 0, "--n-examples: Input should be greater than or equal to 1, got 0"),
        ("batch_size", -3, "--batch-size"),
        ("batch_size", "automatic", "--batch-size"),
        ("batch_size", True, "--batch-size"),
        ("engine", ["channels"], "--engine"),
        ("engine", ["bfloat16,float16"], "--engine"),
        ("logit_scale", 0.0, "--logit-scale"),
        ("logit_scale", float("nan"), "--logit-scale"),
        ("seed", -1, "--seed"),
        ("losses", ("hinge",), "--loss: expected one of focal, focal:GAMMA, brier and kl:ALPHA, "),
        ("losses", ("kl:2",), "--loss: expected kl:ALPHA with a label smoothing in [0, 1]"),
        ("losses", ("brier", "brier"), "--loss: expected each loss once, got brier, brier"),
        ("colour", "red", "--colour: there is no such option"),
        ("sead", 1, "--sead: there is no such option; nearest: seed"),
        ("checks", "fst", "--checks: expected one of none, fast, standard, full, got 'fst'"),
        ("tolerance", 1.0, "--tolerance: Input should be less than 1, got 1.0"),
        ("surrogates", (1,), "--surrogate: Input should be a valid string, got 1"),
        ("mean", ".1,x", "--mean: expected numbers such as .485,.456,.406, got '.1,x'"),
    ],
)
def test_a_bad_field_is_one_line(field: str, value: object, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_request(model="m", attack="a", **{field: value})
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_a_spec_is_frozen() -> None:
    spec = make_request(model="m", attack="a")
    with pytest.raises(ValidationError):
        spec.seed = 3  # type: ignore[misc]


def test_an_unresolved_spec_has_no_budget() -> None:
    with pytest.raises(ValueError, match="not resolved"):
        make_request(model="m", attack="a").budget()


def test_seeds_differ_by_seed_block_and_part() -> None:
    found = {derive_seed(s, b, p) for s in range(5) for b in range(50) for p in ("apgd-ce", "x")}
    assert len(found) == 500
    assert derive_seed(0, 0, "apgd-ce") == derive_seed(0, 0, "apgd-ce")
    assert all(0 <= seed < 2**31 for seed in found)


def test_what_a_field_decides() -> None:
    spec = make_request(model="m", attack="a", arch="net.py:net", checks="full", max_minutes=2)
    assert spec.that_decide("probes") == {
        "checks": "full", "surrogates": [], "until_decided": False,
    }  # fmt: skip
    assert spec.that_decide("spending") == {
        "max_forwards": None, "max_minutes": 2.0, "max_failures": None,
    }  # fmt: skip
    places = spec.that_decide("location")
    assert (places["model"], places["arch"]) == ("m", "net.py:net")
    evidence = spec.that_decide("evidence")
    assert not set(evidence) & {*places, "checks", "tolerance", "detector", "max_minutes"}
    assert {"attack", "eps", "seed", "batch_size", "threads"} <= set(evidence)
    assert len(options()) == len(EvaluationRequest.model_fields)


def test_changes_are_checked() -> None:
    spec = make_request(model="m", attack="a", eps="8/255")
    assert spec.with_(seed=3) == make_request(model="m", attack="a", eps="8/255", seed=3)
    with pytest.raises(UsageError, match="--seed: "):
        spec.with_(seed=-1)


@pytest.mark.parametrize(
    ("fields", "consent"),
    [({}, ""), ({"arch": "net.py:net"}, " --allow-code"), ({"allow_code": True}, " --allow-code")],
)
def test_code_needs_consent(fields: dict[str, object], consent: str) -> None:
    spec = make_request(model="m", attack="a", **fields)
    assert spec.consent == consent
    if consent:
        with pytest.raises(UntrustedCodeError, match=r"^run names code that would run here"):
            spec.refuse_code("run")
    else:
        spec.refuse_code("run")


def test_limits_are_those_of_the_request() -> None:
    limits = make_request(model="m", attack="a", max_forwards=5).limits
    assert (limits.max_forwards, limits.max_minutes) == (5, None)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, flatguard, flatguard.request, flatguard.cli.app;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_engine_options_are_kept_once_and_in_one_order() -> None:
    """The order in which they are named is no part of a run's identity."""
    for given in ("compile,channels-last", ["channels-last", "compile", "Channels-Last"]):
        assert make_request(model="m", attack="a", engine=given).engine == (
            "channels-last",
            "compile",
        )
    assert make_request(model="m", attack="a", batch_size="8").samples_together == 8
    assert make_request(model="m", attack="a", batch_size="Auto").batch_size == "auto"
