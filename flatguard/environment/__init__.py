"""What depends on the machine and the installed packages.

Workarounds for other packages (`compat`), their versions (`requirements`), the diagnosis of both
(`doctor`), network and offline mode, random number generators, devices, torch's global settings,
and differences between operating systems (`system`).
Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""
