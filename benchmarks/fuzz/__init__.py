"""Hostile files for every loader: what is not accepted must be refused in one line."""
