"""What `import flatguard` costs every pytest run on the machine."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.timing import interleaved

REPEATS = 15


def main() -> None:
    """Print the time of a Python that imports flatguard, against one that imports nothing."""

    def python(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    ratio = interleaved(
        {"import": lambda: python("import flatguard")}, lambda: python("pass"), REPEATS
    )["import"]
    print(f"python -c 'import flatguard', against 'pass': {ratio}")


if __name__ == "__main__":
    main()
