"""Reports: a judged run folder as a page, as JSON, as JUnit XML and as Markdown.

This package reads evidence and verdict. It judges nothing and never runs a model.
Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
