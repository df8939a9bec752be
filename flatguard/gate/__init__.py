"""The release gate: a config's thresholds are applied to a run, and unchanged runs are kept.

`gate` evaluates and judges, `outcome` decides, `cache` keeps runs by their `identity`, `baseline`
compares runs, and `pytest_plugin` and `github` show the outcomes.

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
