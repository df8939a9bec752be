"""Messages quote files: whatever stands there, an error is one line that a terminal can show."""

import errno

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flatguard.errors import (
    LONGEST,
    AttackError,
    FlatguardError,
    OutOfMemory,
    UsageError,
    memory_errors,
    ran_out_of_memory,
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
