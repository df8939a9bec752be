"""Other services: experiment trackers, model cards and ML-BOMs, one service a file.

`trackers` logs a run to those that `--log-to` names; `logged_run` is what each of them gets.
Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
