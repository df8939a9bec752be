"""Code blocks of the documentation, for tests that run them."""

import re
from pathlib import Path


def example(document: Path, file: str) -> str:
    """The code block whose first line is a comment that names this file."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", document.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    (found,) = [block for block in blocks if block.startswith(f"# {file}")]
    return found
