"""Pure mathematics on tensors: no files, no models by name, no printing.

Internal, but for `basin`, `bounds` and `weights`, which docs/reference/api.md lists.
"""
