"""`python -m flatguard` is the `flatguard` command."""

from flatguard.cli.app import main

main()
