"""What others say about a model's robust accuracy, against a run's evidence: claims, leaderboard.

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
