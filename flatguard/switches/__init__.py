"""Outputs that are chosen between branches: the gates that choose, and the branches."""
