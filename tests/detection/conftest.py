"""One trained network for all tests of detection."""

import pytest
from support import digits_target

from flatguard.targets import Target


@pytest.fixture(scope="session")
def digits_net() -> Target:
    return digits_target.target()
