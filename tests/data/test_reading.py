"""Every error of a reader becomes one line that names the file."""

import errno
from pathlib import Path

import pytest

from flatguard.data.reading import reading
from flatguard.errors import DataError, ModelError, UntrustedCodeError

CASES = {
    "a pickle that asks for code": (UntrustedCodeError("os.system"), "it asks for code"),
    "a pickle that NumPy refuses": (ValueError("allow_pickle=False"), "holds no plain arrays$"),
    "an error of ours": (ModelError("nests tuples"), "^nests tuples$"),
    "a missing file": (FileNotFoundError(), "^no file d.npz$"),
    "a refusal of the system": (OSError(errno.EIO, "I/O error"), "cannot be read: .*I/O error"),
    "a parser's error": (KeyError("x\ny"), "^d.npz is damaged, or holds no plain arrays: .x"),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_become_one_line(case: str) -> None:
    error, expected = CASES[case]
    with pytest.raises(DataError, match=expected) as caught, reading(Path("d.npz")):
        raise error
    assert "\n" not in str(caught.value)


def test_a_data_error_is_passed_on() -> None:
    error = DataError("expected images")
    with pytest.raises(DataError) as caught, reading(Path("d.npz")):
        raise error
    assert caught.value is error
