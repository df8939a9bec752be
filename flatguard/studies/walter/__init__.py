"""Walter et al. (2026): every figure and table, and the statements that can be tested.

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
