"""Checks: one a module. Each gathers evidence with the model, and judges it without.

The checks are the modules with a `CHECK`; `check.py` defines one; `registry.py` finds them.
The other modules are what they share, and the verdict that follows from their findings.

Internal, but `verdict.Verdict` and `finding.Finding`: the public API is what flatguard exports and
what docs/reference/api.md lists.
"""
