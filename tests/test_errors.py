"""Messages quote files: whatever stands there, an error is one line that a terminal can show."""

from hypothesis import given
from hypothesis import strategies as st

from flatguard.errors import LONGEST, FlatguardError, UsageError, visible


@given(st.text())
def test_an_error_is_one_visible_line(text: str) -> None:
    shown = str(UsageError(text))
    assert len(shown.splitlines()) <= 1
    assert visible(shown) == shown
    assert len(shown) <= 6 * LONGEST


def test_what_can_be_seen_stays() -> None:
    text = "κ → −3.2: expected 8/255, got 'é  x'"
    assert str(FlatguardError(text)) == text
    assert str(FlatguardError("a\nb\x1b[2J")) == "a b\\u001b[2J"
    assert len(str(FlatguardError("x" * 10**6))) == LONGEST
