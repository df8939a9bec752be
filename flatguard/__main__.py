"""The `flatguard` command, also as `python -m flatguard`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; report a required package that is missing or broken in one line."""
    try:
        from flatguard.cli.app import main as run
    except KeyboardInterrupt:
        print("flatguard: interrupted; what was recorded is kept", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except Exception as error:  # a package that is too old or broken may raise anything
        from flatguard.environment.requirements import explain

        why = explain(error)
        if why is None:
            raise
        print(f"flatguard: {why}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
