"""Tables of a run that were read already, as far as there is room for them."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

MOST = 64 * 2**20
"""Bytes that the tables of one run may take; what has no room is read anew each time."""


class KeptTables:
    """Tables by what they are of. They are shared, so that nothing may change them."""

    def __init__(self) -> None:
        self._tables: dict[str, pd.DataFrame] = {}
        self._left = MOST

    def get(self, key: str, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The table that is kept, or the one that is read now.

        Args:
            key: says where it is from and, by a checksum, what it holds.
            read: reads it.
        """
        if key in self._tables:
            return self._tables[key]
        table = read()
        size = int(table.memory_usage().sum())
        if size <= self._left:
            self._left -= size
            self._tables[key] = table
        return table
