"""Searches for adversarial examples that several checks share: gradients, twins, attempts.

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
