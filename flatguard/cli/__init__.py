"""The command line: one command a file, which parses its options and calls the library.

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
