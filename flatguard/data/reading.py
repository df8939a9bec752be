"""The errors of reading a data file, as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flatguard.errors import (
    DataError,
    FlatguardError,
    UntrustedCodeError,
    check_readable,
    one_line,
    refused,
)


@contextmanager
def reading(path: Path, otherwise: str = "holds no plain arrays") -> Iterator[None]:
    """Any error while a data file is read becomes a `DataError` of one line that names the file.

    Args:
        path: of the file, or of a folder.
        otherwise: what is wrong with the file if it is not damaged.
    """
    if path.is_file():
        check_readable(path, DataError)
    try:
        yield
    except DataError:
        raise
    except UntrustedCodeError as error:  # --allow-code is for models only
        raise DataError(f"{path} is damaged, or {otherwise}: it asks for code") from error
    except FlatguardError as error:
        raise DataError(str(error)) from error
    except FileNotFoundError as error:
        raise DataError(f"no file {path}") from error
    except Exception as error:  # zipfile, pickle, numpy and torch raise their own
        if refused(error):
            raise DataError(f"{path} cannot be read: {one_line(error)}") from error
        is_pickle = "allow_pickle" in str(error) or "weights_only" in str(error)
        what = "" if is_pickle else f": {one_line(error)}"
        raise DataError(f"{path} is damaged, or {otherwise}{what}") from error
