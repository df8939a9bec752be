"""The layout of a run folder, and the names of its files.

    RUN/
      evidence/                    written once, never changed
        manifest.json              the resolved request, versions, hashes, the list of blocks
        blocks/00000-1a2b3c4d5e6f/ one folder a block; the name ends in the start of its seal
          block.json               counts, seed, warnings, SHA-256 of the block's files
          timing.json              seconds by stage
          samples.parquet          a row per sample: clean, adversarial, robust
          trajectory.parquet       a row per sample and model call
          layers.parquet           a row per sample, layer and point; only with --layers
          adversarial.safetensors  `adversarial`: (n, channels, height, width) float32
          clean.safetensors        `clean`: the same images before, in uint8 where that is exact
          mistakes.safetensors     `sample`, `images`, `margin`: the most wrong example that the
                                   attack passed through, of survivors; only where there is one
        probes/twins/              the evidence that a check gathered; see `check_evidence`
        failed/00000/              a block whose attack raised after its first model call
          failure.json             counts and the error
          trajectory.parquet       the rows that were recorded until then
      summary.json verdict.json    derived; can be deleted and made again, as can report.*
      spent.json                   only with limits: forward passes that were spent
      detection.json               derived: which samples a detector flags, its thresholds and
                                   SHA-256; see `detection.flagging.Detection`
      .staging/                    folders that are not published yet

The manifest is written before the first block and never again. A run is complete when every block
of the manifest's list is published. Each JSON file of the evidence has a seal, the SHA-256 of its
own content; `block.json`, `probe.json` and `failure.json` also hold the checksums of the files
beside them. `timing.json` is the exception to those checksums: two processes that attack the same
block write the same bytes, but not the same seconds. It has its own seal.
"""

from __future__ import annotations

import re
from pathlib import Path

from flatguard.runs.untrusted import is_plain_folder

EVIDENCE, MANIFEST, SUMMARY = "evidence", "manifest.json", "summary.json"
BLOCKS, FAILED, PROBES, STAGING = "blocks", "failed", "probes", ".staging"
BLOCK, FAILURE, PROBE, TIMING = "block.json", "failure.json", "probe.json", "timing.json"
SAMPLES, TRAJECTORY, LAYERS = "samples.parquet", "trajectory.parquet", "layers.parquet"
ADVERSARIAL, CLEAN = "adversarial.safetensors", "clean.safetensors"
MISTAKES = "mistakes.safetensors"
PROMPTS = "prompts.json"
"""The manifest of a run on prompts; see `prompt_run`."""
BLOCK_NAME = r"[0-9]{5,9}-[0-9a-f]{12}"


def committed(run: Path) -> dict[int, Path]:
    """The folders of the committed blocks, by number.

    If a block was committed twice, by devices that do not agree, the first name counts.
    """
    folder = run / EVIDENCE / BLOCKS
    found: dict[int, Path] = {}
    for block in sorted(folder.iterdir()) if is_plain_folder(folder) else []:
        if re.fullmatch(BLOCK_NAME, block.name) and is_plain_folder(block):
            found.setdefault(int(block.name.partition("-")[0]), block)
    return found
