"""Records every model call of an attack, with its geometry.

Internal, but for `Recorder` and the columns in `trajectory`: the public API is what flatguard
exports and what docs/reference/api.md lists.
"""
