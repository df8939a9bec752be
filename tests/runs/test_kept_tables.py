"""Tables are read once while there is room for them."""

import pandas as pd
import pytest

from flatguard.runs.kept_tables import KeptTables


def test_a_table_is_read_once_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = pd.DataFrame({"a": range(10)}), pd.DataFrame({"a": range(1000)})
    monkeypatch.setattr("flatguard.runs.kept_tables.MOST", 2 * int(small.memory_usage().sum()))
    kept, read = KeptTables(), list[str]()

    def reads(name: str, table: pd.DataFrame) -> pd.DataFrame:
        read.append(name)
        return table.copy()

    for name, table in (("one", small), ("large", large), ("two", small), ("three", small)):
        for _ in range(2):
            found = kept.get(name, lambda name=name, table=table: reads(name, table))
            pd.testing.assert_frame_equal(found, table)
    assert read == ["one", "large", "large", "two", "three", "three"]
