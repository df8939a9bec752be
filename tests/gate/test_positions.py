"""Configs from elsewhere: no code, no growth, no traceback."""

import time
from pathlib import Path

import pytest

from flatguard.errors import UsageError
from flatguard.gate.config import load_config
from flatguard.gate.positions import LARGEST

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
"""A billion laughs: 9^10 values in 400 bytes, for whoever walks through them."""

REFUSED = {
    "laughs": (LAUGHS, "aliases are not allowed in a config"),
    "itself": ("title: &a [*a]", "aliases are not allowed in a config"),
    "code": ("title: !!python/object/apply:os.system ['touch victim']", "determine a constructor"),
    "a name of code": ("title: !!python/name:os.system", "determine a constructor"),
    "deep lists": ("[" * 20_000, "nested too deeply"),
    "deep blocks": ("- " * 10_000, "nested too deeply"),
    "deep maps": ("attack_args: " + "{a: " * 5_000, "nested too deeply"),
    "a long number": (f"seed: {'1' * 5_000}", "not valid YAML"),
    "a long hexadecimal": (f"seed: 0x{'f' * 5_000}", "a number is too large"),
    "a day that is none": ("title: 2026-13-45", "month must be in 1..12"),
    "a tag without a value": ("seed: !!int ''", "not valid YAML"),
    "a time that is none": ("title: !!timestamp x", "not valid YAML"),
    "a control character": ("a\x1b[2J: 3", "special characters are not allowed"),
    "a hidden control character": ('"\\e[2J": 3', "\\u001b[2J: there is no such key"),
    "a list for a key": ("? [1, 2]\n: 3", "unhashable key"),
    "a number for a key": ("1: 2", "Keys should be strings"),
    "infinite means": ("mean: [.inf]\nstd: [1.0]", "mean"),
    "too long": ("#" * (LARGEST + 1), "expected a config of at most 32 KiB"),
    "no text": (b"\xff\xfe\x00", "cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_config_needs(case: str) -> None:
    content, expected = REFUSED[case]
    Path("c.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    began = time.process_time()
    with pytest.raises(UsageError) as caught:
        load_config("c.yaml")
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert time.process_time() - began < 20
    assert not Path("victim").exists()


def test_an_argument_that_python_cannot_parse() -> None:
    """It is a word then."""
    for text in ("-" * 20_000 + "1", "(" * 500, "1" * 5_000):
        Path("c.yaml").write_text(f"attack_args: {{a: '{text}'}}")
        assert load_config("c.yaml").attack_args == {"a": text}
