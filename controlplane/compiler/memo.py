"""A cache of results by key, each with the input that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Source = TypeVar("Source")
Result = TypeVar("Result")


class Memo(Generic[Key, Source, Result]):
    """The newest result for each key. Equal input gives the same result object.

    Inputs are frozen values, so a result stays right. The owner bounds it with `keep`.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[Key, tuple[Source, Result]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, source: Source, make: Callable[[], Result]) -> Result:
        """Return the result for `source`; call `make` if the entry of `key` was made from other input, or there is none."""
        entry = self._entries.get(key)
        # `is` is the fast test. Equality finds objects that were read again from the store.
        if entry is None or (entry[0] is not source and entry[0] != source):
            entry = self._entries[key] = (source, make())
        return entry[1]

    def keep(self, wanted: Callable[[Key], bool]) -> None:
        """Drop the entries whose key is not wanted."""
        self._entries = {key: entry for key, entry in self._entries.items() if wanted(key)}
