"""Messages quote files: whatever stands there, an error is one line that a terminal can show."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from flatguard.errors import (
    LONGEST,
    AttackError,
    BudgetSpent,
    DataError,
    FlatguardError,
    OutOfMemory,
    UsageError,
    check_readable,
    did_you_mean,
    memory_errors,
    no_room,
    ran_out_of_memory,
    reason_of,
    refused,
    shortened,
    visible,
)


@given(st.text())
def test_an_error_is_one_visible_line(text: str) -> None:
    shown = str(UsageError(text))
    assert len(shown.splitlines()) <= 1
    assert visible(shown) == shown
    assert len(shown) <= 6 * LONGEST


def test_what_can_be_seen_stays() -> None:
    text = "κ → −3.2: expected 8/255, got 'é  x'"
    assert str(FlatguardError(text)) == text
    assert str(FlatguardError("a\nb\x1b[2J")) == "a b\\u001b[2J"
    assert len(str(FlatguardError("x" * 10**6))) == LONGEST


def _of_the_allocator() -> None:
    torch.empty(10**15)


def _of_numpy() -> None:
    np.empty(10**15)


def _wrapped() -> None:
    try:
        torch.empty(10**15)
    except RuntimeError as error:
        raise ValueError("the encoder failed") from error


@pytest.mark.parametrize("fails", [_of_the_allocator, _of_numpy, _wrapped])
def test_memory_that_runs_out_is_known_by_what_is_raised(fails: object) -> None:
    assert callable(fails)
    said = "the model on 4 images: the memory is too small"
    with pytest.raises(OutOfMemory, match=said), memory_errors("the model on 4 images"):
        fails()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.98 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough "
                     "memory: you tried to allocate 4000000000 bytes."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)  # fmt: skip
def test_the_words_of_every_device(error: Exception) -> None:
    assert ran_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        None, RuntimeError("shape mismatch"), KeyError("memory"), FileNotFoundError("memory.pt"),
        AttackError("no such attack"), KeyboardInterrupt(),
    ],
)  # fmt: skip
def test_other_errors_are_no_want_of_memory(error: BaseException | None) -> None:
    assert not ran_out_of_memory(error)


def test_exit_codes() -> None:
    assert (UsageError.exit_code, BudgetSpent.exit_code) == (2, 3)


def test_the_middle_of_a_long_text_is_cut_out() -> None:
    assert shortened("abcdefgh", 8) == "abcdefgh"
    assert shortened("abcdefghi", 6) == "ab…ghi"


def test_the_nearest_names() -> None:
    known = ["apgd-ce", "apgd-t", "square"]
    assert did_you_mean("APGD-CE2", known, 1) == "; nearest: apgd-ce"
    assert did_you_mean("xyz", known) == ""


def test_refusals_of_the_system_are_not_bad_content(tmp_path: Path) -> None:
    assert refused(PermissionError(errno.EACCES, "Permission denied"))
    assert not refused(OSError(errno.EINVAL, "Invalid argument"))
    assert not refused(OSError("a parser's own"))
    assert not refused(ValueError("bad content"))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        check_readable(tmp_path, DataError)
    (tmp_path / "file").write_bytes(b"")
    check_readable(tmp_path / "file", DataError)


def test_the_reason_of_the_system() -> None:
    assert (
        reason_of(FileNotFoundError(errno.ENOENT, "No such file", "x.pt")) == "x.pt: No such file"
    )
    assert reason_of(OSError("first\nsecond")) == "OSError: first"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EFBIG, "File too large"), "larger than this machine allows"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota"),
        (SafetensorError('I/O error: Os { code: 28, kind: StorageFull, message: "x" }'), "is full"),
        (SafetensorError("I/O error: File too large (os error 27)"), "larger than"),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0"), "full?"),
        (OSError("Error writing bytes to file. Detail: [errno 122] Disk quota exceeded"), "quota"),
    ],
)
def test_a_full_disk_is_known_by_every_library(error: Exception, expected: str) -> None:
    wrapped = ValueError("the writer stopped")
    wrapped.__cause__ = error
    for met in (error, wrapped):
        why = no_room(met)
        assert why is not None
        assert expected in why


@pytest.mark.parametrize(
    "error",
    [None, OSError(errno.EACCES, "Permission denied"), ValueError("code 28"), KeyError("x"),
     DataError("no space left")],
)  # fmt: skip
def test_other_errors_are_no_full_disk(error: BaseException | None) -> None:
    assert no_room(error) is None
