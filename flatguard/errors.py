"""One exception tree: a message says what was expected, what was given and what to do.

Every error that a user can cause is a `FlatguardError`; the command line prints its
message on one line and exits with `exit_code`.
"""

from __future__ import annotations

import difflib
import errno
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_KEPT_CONTROLS = "\n\t"
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")
"""Unicode categories that are invisible: controls, bidi marks, surrogates, unassigned."""

_MEMORY_ERRORS = {"OutOfMemoryError", "ResourceExhaustedError"}
"""Exceptions that libraries raise when memory runs out. By name: the libraries are optional."""

_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|(can't|cannot|unable to|failed to) allocate|"
    r"bad_alloc|bad allocation|ALLOC_FAILED|RESOURCE_EXHAUSTED|Invalid buffer size",
    re.IGNORECASE,
)
"""Messages of torch (CPU, CUDA, ROCm, MPS) and other libraries; most are RuntimeErrors."""

LONGEST = 4000
"""Most characters of a message. Names and values come from files and can be very long."""


def visible(text: str) -> str:
    """The text, with every invisible character replaced by its code point."""
    if text.isprintable():
        return text
    return "".join(
        f"\\u{ord(char):04x}"
        if unicodedata.category(char) in _HIDDEN and char not in _KEPT_CONTROLS
        else char
        for char in text
    )


def shortened(text: str, most: int) -> str:
    """At most `most` characters of the text; the middle is cut out."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


class FlatguardError(Exception):
    """Base of all errors that flatguard raises on purpose; its text is one visible line.

    Messages quote files from untrusted sources, and terminals execute control characters.
    """

    exit_code = 2

    def __str__(self) -> str:
        text = shortened(super().__str__(), LONGEST)
        return visible(" ".join(text.replace("\t", " ").splitlines()))


class UsageError(FlatguardError):
    """An option or argument is wrong: a bad value, or two that contradict each other."""


class EnvironmentProblem(FlatguardError):
    """The installation, the device, the network or the disk lacks something."""


class ModelError(FlatguardError):
    """A model is unknown, cannot be loaded, or does not behave like a classifier."""


class UntrustedCodeError(ModelError):
    """A file would run code when it is loaded, and `--allow-code` is not set."""


class DataError(FlatguardError):
    """A data set is missing, malformed, out of range, or does not fit the model."""


class AttackError(FlatguardError):
    """An attack is unknown, got wrong arguments, or failed on this model."""


class OutOfMemory(AttackError):
    """A model or an attack needs more memory than there is for this many images at once."""


class BudgetSpent(FlatguardError):
    """A run's budget of forwards or minutes ended before any result existed."""

    exit_code = 3


class RunFolderError(FlatguardError):
    """A run folder cannot be written, is damaged, or has a newer format."""


class NoRoom(RunFolderError):
    """The disk is full, a quota is used up, or a file would be larger than is allowed."""


class DetectorError(FlatguardError):
    """A saved detector is missing, damaged, newer, or belongs to another model."""


class TrackerError(FlatguardError):
    """A tracker does not answer, refuses the run, or is switched off."""


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or a cause of it, reports that memory ran out."""
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
    is_known = any(kind.__name__ in _MEMORY_ERRORS for kind in type(error).__mro__)
    return is_known or _NO_MEMORY.search(str(error)) is not None


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn errors about exhausted memory into `OutOfMemory`, in one line; pass on all others.

    Args:
        what: the model, attack or check that needs the memory, and for how many images.
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


_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "the file would be larger than this machine allows (ulimit -f)",
    **({errno.EDQUOT: "the disk quota is used up"} if hasattr(errno, "EDQUOT") else {}),
}
_NO_ROOM_TEXTS = (
    (re.compile(r"no space left|code: 28\b|errno 28\b|disk full", re.IGNORECASE), errno.ENOSPC),
    (re.compile(r"file too large|code: 27\b|errno 27\b", re.IGNORECASE), errno.EFBIG),
    (re.compile(r"quota exceeded|code: 122\b|errno 122\b", re.IGNORECASE), 122),
)
"""The words of libraries that lose the system's number: safetensors, pyarrow, torch."""


def no_room(error: BaseException | None) -> str | None:
    """Why there is no room to write, if an error or a cause of it reports that; else None."""
    met: list[BaseException] = []
    while error is not None and error not in met:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return _NO_ROOM[error.errno]
        if not isinstance(error, FlatguardError):
            for words, number in _NO_ROOM_TEXTS:
                if words.search(str(error)):
                    return _NO_ROOM.get(number, "the disk quota is used up")
            if "PytorchStreamWriter" in str(error):
                return "the file cannot be written: is the disk full?"
        met.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def reason_of(error: OSError) -> str:
    """The operating system's reason, with the file if the error names one."""
    reason = error.strerror or one_line(error)
    where = type(error).__name__ if error.filename is None else error.filename
    return f"{where}: {reason}"


def refused(error: BaseException) -> bool:
    """Whether the operating system refused to read or write, rather than the content being bad.

    A truncated archive makes its reader seek before the file's start, which raises EINVAL.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def check_readable(file: Path, kind: type[FlatguardError]) -> None:
    """Refuse a file that exists and cannot be read, before a parser calls it damaged.

    Raises:
        kind: with the operating system's reason.
    """
    try:
        with file.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        raise kind(f"{file} cannot be read: {error.strerror or one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The first line of an exception's message that says something, or the name of its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0].startswith(_OF_A_SCRIPT):  # a traceback follows, and the error is its last line
        return lines[-1].removeprefix("RuntimeError: ")
    return f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]


_OF_A_SCRIPT = "The following operation failed in the TorchScript interpreter"


def nearest(name: str, known: Iterable[str], count: int = 5) -> list[str]:
    """Up to `count` known names that are most similar to `name`, best first; case is ignored."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=count, cutoff=0.4)
    return [by_lower[lower] for lower in found]


def did_you_mean(name: str, known: Iterable[str], count: int = 5) -> str:
    """`"; nearest: a, b"`, or an empty string if no name is similar."""
    found = nearest(name, known, count)
    return f"; nearest: {', '.join(found)}" if found else ""
