"""Every loader of untrusted files against hostile ones that were found or thought of before.

`make fuzz` makes many more, and keeps what crashes: it belongs here then.
"""

import re
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz.loaders import BY_NAME, Harness
from flatguard.errors import FlatguardError, visible

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(str(file.relative_to(CORPUS)) for file in CORPUS.glob("*/*"))
QUICK = sorted(name for name, loader in BY_NAME.items() if loader.inputs >= 4_000)


@lru_cache
def harness(name: str) -> Harness:
    return BY_NAME[name].ready(Path(mkdtemp(prefix="fuzz-")))


def accepted(name: str, content: bytes) -> bool:
    """Whether it was; it was refused in one line that can be seen otherwise."""
    told = None
    try:
        harness(name).load(content)
    except FlatguardError as error:
        told = str(error)
    assert told is None or (len(told.splitlines()) == 1 and visible(told) == told)
    return told is None


@pytest.mark.parametrize("name", BY_NAME)
def test_whole_files_are_accepted(name: str) -> None:
    assert all(accepted(name, seed) for seed in harness(name).seeds)


def of_this_run(name: str, content: bytes) -> bytes:
    """The file with the identity of the harness's run, which depends on the request's fields."""
    found = re.search(rb'"run(_sha256)?": "([0-9a-f]{64})"', harness(name).seeds[0])
    return content.replace(b"RUN-IDENTITY", found[2] if found else b"")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", FILES)
def test_the_corpus(file: str) -> None:
    name = Path(file).parent.name
    was = accepted(name, of_this_run(name, (CORPUS / file).read_bytes()))
    assert was == Path(file).name.startswith("accepted")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_damaged_files(name: str, data: st.DataObject) -> None:
    """A few bytes are changed, left out or put in, anywhere."""
    content = bytearray(data.draw(st.sampled_from(harness(name).seeds)))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 20))
        content[start : start + length] = data.draw(st.binary(max_size=20))
    accepted(name, bytes(content))
