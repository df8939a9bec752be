"""`flatguard merge`."""

from pathlib import Path

from support.commands import CHECKPOINT, JUDGED, PGD, advised


def test_merged_shards_are_judged_as_advised(cli, files: Path) -> None:
    for number in (1, 2):
        cli(*CHECKPOINT, *PGD, "--batch-size", "6", "--out", str(number), "--shard", f"{number}/2")
    merged = cli("merge", "1", "2", "--out", "both of them")
    assert merged.code == 0
    assert cli(*advised(merged)[0]).code in JUDGED
