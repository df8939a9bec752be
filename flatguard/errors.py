"""One exception tree: a message says what was expected, what came and what to do.

Every error that a user can cause is a `FlatguardError`; the command line prints its
message on one line and ends with `exit_code`.
"""

from __future__ import annotations

import difflib
import errno
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT_CONTROLS = "\n\t"
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")
"""Unicode categories without a face of their own: controls, bidi marks, surrogates, unassigned."""

MEMORY_ERRORS = {"OutOfMemoryError", "ResourceExhaustedError"}
"""Names of what libraries raise where memory runs out; none of them need be installed."""

NO_MEMORY = re.compile(
    r"out of memory|not enough memory|(can't|cannot|unable to|failed to) allocate|"
    r"bad_alloc|bad allocation|ALLOC_FAILED|RESOURCE_EXHAUSTED|Invalid buffer size",
    re.IGNORECASE,
)
"""What torch says on CPUs, CUDA, ROCm and MPS, and other libraries: most raise a RuntimeError."""

LONGEST = 4000
"""Characters of a message: names and values come from files, and may be as long as a file."""


def visible(text: str) -> str:
    """The text, with every character that cannot be seen written as its number."""
    if text.isprintable():
        return text
    return "".join(
        f"\\u{ord(char):04x}"
        if unicodedata.category(char) in HIDDEN and char not in KEPT_CONTROLS
        else char
        for char in text
    )


def shortened(text: str, most: int) -> str:
    """At most so many characters; a middle is left out."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


class FlatguardError(Exception):
    """Base of all errors that flatguard raises on purpose; its text is one line that can be seen.

    A terminal obeys what it is shown, and messages quote files that anybody may have written.
    """

    exit_code = 2

    def __str__(self) -> str:
        text = shortened(super().__str__(), LONGEST)
        return visible(" ".join(text.replace("\t", " ").splitlines()))


class UsageError(FlatguardError):
    """An option or argument does not fit: a bad value, or two that contradict each other."""


class EnvironmentProblem(FlatguardError):
    """The installation, the device, the network or the disk is not as needed."""


class ModelError(FlatguardError):
    """A model is unknown, cannot be loaded, or does not behave like a classifier."""


class UntrustedCodeError(ModelError):
    """A file would run code when it is loaded, and nobody allowed it."""


class DataError(FlatguardError):
    """A data set is missing, malformed, out of range, or does not fit the model."""


class AttackError(FlatguardError):
    """An attack is unknown, got wrong arguments, or failed on this model."""


class OutOfMemory(AttackError):
    """The memory does not hold what a model or an attack needs for so many images at once."""


class BudgetSpent(FlatguardError):
    """A run's budget of forwards or minutes ended before there was anything to judge."""

    exit_code = 3


class RunFolderError(FlatguardError):
    """A run folder cannot be written, is damaged, or is of a newer format."""


class DetectorError(FlatguardError):
    """A saved detector is missing, damaged, newer, or of another model."""


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that the memory is exhausted."""
    met: list[BaseException] = []
    while error is not None and error not in met:
        if _says_no_memory(error):
            return True
        met.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def _says_no_memory(error: BaseException) -> bool:
    if isinstance(error, OutOfMemory | MemoryError):
        return True
    if isinstance(error, FlatguardError) or not isinstance(error, Exception):
        return False
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_known = any(kind.__name__ in MEMORY_ERRORS for kind in type(error).__mro__)
    return is_known or NO_MEMORY.search(str(error)) is not None


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Memory that runs out inside becomes `OutOfMemory`, in one line; other errors stay.

    Args:
        what: the model, the attack or the check that needs it, and for how many images.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"{what}: the memory is too small ({one_line(error)}); give a smaller --batch-size, or "
            "fewer --workers"
        ) from error


def reason_of(error: OSError) -> str:
    """What the system said no to: the file, where it names one, and why."""
    reason = error.strerror or one_line(error)
    where = type(error).__name__ if error.filename is None else error.filename
    return f"{where}: {reason}"


def refused(error: BaseException) -> bool:
    """Whether the system refused to read or write; otherwise it is what a file holds.

    A cut archive leads its reader to a place before the file's beginning: an invalid argument.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def check_readable(file: Path, kind: type[FlatguardError]) -> None:
    """Refuse a file that is there and cannot be read; parsers call it damaged.

    Raises:
        kind: with the system's reason.
    """
    try:
        with file.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        raise kind(f"{file} cannot be read: {error.strerror or one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The first non-empty line of an exception's text, or its type's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def nearest(name: str, known: Iterable[str], count: int = 5) -> list[str]:
    """The `count` known names that look most like `name`, best first, case ignored."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=count, cutoff=0.4)
    return [by_lower[lower] for lower in found]


def did_you_mean(name: str, known: Iterable[str], count: int = 5) -> str:
    """`"; nearest: a, b"`, or nothing where nothing is near."""
    found = nearest(name, known, count)
    return f"; nearest: {', '.join(found)}" if found else ""
