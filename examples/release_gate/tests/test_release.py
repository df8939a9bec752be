"""The three lines: everything else is in release.yaml."""


def test_release(flatguard):
    """The same gate as `flatguard_config` in pyproject.toml collects, as one test."""
    flatguard.check("release.yaml")
