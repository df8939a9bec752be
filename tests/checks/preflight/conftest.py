"""One honest set-up for all tests of preflight."""

import pytest
from support import broken
from support.broken import SetUp


@pytest.fixture(scope="session")
def good() -> SetUp:
    return broken.honest()
