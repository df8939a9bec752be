"""Who watches a run in tests."""

from flatguard.execution.progress import Silent


class Listener(Silent):
    """Keeps the lines that a person would read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        """Keep it."""
        self.lines.append(line)
