"""Flatness and landscape of the robust loss in the model's weights (Stutz et al. 2021).

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
