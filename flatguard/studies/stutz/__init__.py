"""Stutz et al. (2021): every figure and table of the workshop version.

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
