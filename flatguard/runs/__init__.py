"""The run folder: its layout, its storage, and how it is read and written; it computes nothing.

`layout` shows the folder. `run` reads it; `writing` and `check_evidence` write it. `publishing`
makes a folder of evidence appear atomically. `storage` is the disk or the address where it is.

Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
