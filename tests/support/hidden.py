"""Processes in which packages are not installed."""

import subprocess
import sys


def hidden(*packages: str, then: str) -> subprocess.CompletedProcess[str]:
    """A process in which packages are not installed, as in an environment without an extra."""
    code = f"""
import sys
from importlib import metadata
gone = {packages!r}
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in gone:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Gone())
version = metadata.version
def without(name):
    if name in gone:
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = without
{then}
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


MAIN = "sys.argv = {typed!r}\nfrom flatguard.__main__ import main\nmain()"
