"""The models of a run folder's JSON files: values that no run has are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.run_folders import MANIFEST, refused

from benchmarks.fuzz.forging import forge
from flatguard.runs.run import Run

MANIFESTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "no budget": (lambda m: m["request"].update(norm=None), "its request has no norm"),
    "no blocks": (lambda m: m.update(blocks=[]), "it has no blocks"),
    "a gap": (lambda m: m["blocks"][1].update(start=3), "block 1 does not follow"),
    "twice the same": (lambda m: m["blocks"][1].update(index=0), "block 1 does not follow"),
    "backwards": (lambda m: m["blocks"][0].update(stop=0), "block 0 does not follow"),
    "no classes": (lambda m: m["target"].update(num_classes=0), "target.num_classes"),
    "a device of nothing": (lambda m: m.update(device={}), "its device has no type"),
    "a million threads": (lambda m: m["device"].update(threads=10**6), "number of threads"),
    "an endless number": (lambda m: m["blocks"][0].update(seed=10**300), "blocks.0.seed"),
    "a path for a norm": (lambda m: m["request"].update(norm="../x"), "request.norm"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests_that_no_run_has(case: str, run: Run) -> None:
    edit, expected = MANIFESTS[case]
    forge(MANIFEST, edit)
    refused(f"manifest.json is damaged: .*{expected}")


@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd", "a/b", "..", "", "a\n"])
def test_a_checksum_of_a_file_elsewhere(block: Path, name: str) -> None:
    forge(block / "block.json", lambda facts: facts["files"].update({name: "0" * 64}))
    refused(r"block\.json is damaged: files")


@pytest.mark.parametrize("sample", [-1, 1 << 60, 0.5, None])
def test_a_failure_of_no_sample(block: Path, sample: object) -> None:
    failure = {"sample": sample, "error": ""}
    forge(block / "block.json", lambda facts: facts.update(failures=[failure]))
    refused(r"block\.json is damaged: failures")


def test_the_identity_covers_what_decides_the_blocks_and_nothing_else(run: Run) -> None:
    manifest = run.manifest
    assert manifest.identity == manifest.identified().identity

    def identity(**changes: Any) -> str:
        return manifest.model_copy(update=changes).identified().identity

    def of_request(**changes: Any) -> str:
        return identity(request=manifest.request.model_copy(update=changes))

    assert identity(created="later", command=("other",)) == manifest.identity
    assert of_request(max_forwards=7, tolerance=0.5, checks="full") == manifest.identity
    different = {
        of_request(seed=1), of_request(eps="1/255"), identity(versions={"flatguard": "1"}),
        identity(attack_args={"steps": 3}), identity(blocks=manifest.blocks[:1]),
    }  # fmt: skip
    assert len(different - {manifest.identity}) == 5
