"""Twins: copies of a model that make the same decisions and are easier to attack."""
