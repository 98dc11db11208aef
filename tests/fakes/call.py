"""The part of a gRPC call that services read: who calls, and from where."""

from __future__ import annotations

from typing import Any


class Call:
    """The context of a call by `author` from 10.0.0.1."""

    def __init__(self, author: str = "ann") -> None:
        self._author = author

    def invocation_metadata(self) -> Any:
        return (("x-turnout-author", self._author),)

    def peer(self) -> str:
        return "ipv4:10.0.0.1:5000"
