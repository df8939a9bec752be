"""Names of weights: wrappers, norms, prefixes."""

import pytest

from flatguard.targets.weight_names import canonical, counts, prefixes, without_own_prefixes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("module.conv.weight", "conv.weight"),
        ("_orig_mod.module.features.module.0.bias", "features.0.bias"),
        ("fc.parametrizations.weight.original0", "fc.weight_g"),
        ("fc.parametrizations.weight.original1", "fc.weight_v"),
        ("fc.parametrizations.weight.original", "fc.weight_orig"),
        ("fc.parametrizations.weight.0._u", "fc.weight_u"),
        ("parametrizations.weight.0._v", "weight_v"),
        ("fc.parametrizations.weight.1._v", "fc.parametrizations.weight.1._v"),
        ("modules.original", "modules.original"),
    ],
)
def test_names_without_what_wrappers_and_norms_add(name: str, expected: str) -> None:
    assert canonical(name) == expected


def test_counters() -> None:
    assert counts("bn.num_batches_tracked")
    assert counts("n_averaged")
    assert not counts("n_averaged.weight")


def test_prefixes_that_most_names_have_come_first() -> None:
    given = ["net.a.weight", "net.a.bias", "net.b.weight", "ema.a.weight"]
    assert prefixes(given, ["a.weight", "a.bias", "b.weight"])[0] == ("net.", "")
    assert prefixes(["a.weight"], ["model.a.weight"])[0] == ("", "model.")


def test_a_prefix_for_each_part() -> None:
    wanted = {name: name for name in ("0.weight", "1.weight", "1.num_batches_tracked")}
    given = {"enc.0.weight": "enc.0.weight", "head.1.weight": "head.1.weight"}
    assert without_own_prefixes(given, wanted) == {
        "0.weight": "enc.0.weight", "1.weight": "head.1.weight",
    }  # fmt: skip
    assert without_own_prefixes(given | {"dec.0.weight": "dec.0.weight"}, wanted) == {}
    assert without_own_prefixes({"enc.0.weight": "enc.0.weight"}, wanted) == {}
