"""Entries of the audit log, as lines of JSON.

    {"chain":"7a0b93c1","seq":12,"time":"2026-11-29T10:36:03.120Z","event":"call", …,"prev":"…","hash":"…"}

`chain` is the random name of the log, and `seq` counts its entries from 1.

`hash` is SHA-256 of the line without it, and `prev` is the hash of the entry before. So an entry that is changed, removed or
added breaks the chain: somebody would have to write all entries after it anew, and the store has the hash of the newest one.

| event | is |
|---|---|
| begin | the first entry of a chain; `earlier` names the chains that the store knew already |
| start | the server was started; `cut` is the number of entries that the store knew of and that are missing |
| attempt | a caller with a role for the method asks for a change; its objects are not checked yet, so a refusal may follow |
| call | the outcome of a call: `code` OK, with `revision` if it made one, or the error |
| stranger | a sample of the calls without a valid credential that were refused; `unlogged` counts those that have no entry |
| dropped | the oldest file was removed, because the log has reached its bound; `first` is the oldest entry that is left |
| repaired | the server stopped while it wrote the last entry, whose incomplete line was removed |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# The hash before the first entry.
NOTHING = "0" * 64

# Characters of each text in an entry.
_MAX_TEXT = 500


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of a chain."""

    chain: str = ""
    seq: int = 0
    hash: str = NOTHING
    # The oldest entry that was not dropped.
    first: int = 1

    def after(self, entry: Mapping[str, Any]) -> Head:
        """Return the head after an entry."""
        head = replace(self, chain=entry["chain"], seq=entry["seq"], hash=entry["hash"])
        return replace(head, first=entry["first"]) if entry["event"] == "dropped" else head

    def to_json(self) -> bytes:
        """Return the head as JSON."""
        return json.dumps({"chain": self.chain, "seq": self.seq, "hash": self.hash, "first": self.first}).encode()

    @staticmethod
    def from_json(data: bytes) -> Head:
        """Return the head from JSON. Errors: ValueError, KeyError, TypeError."""
        value = json.loads(data)
        return Head(str(value["chain"]), int(value["seq"]), str(value["hash"]), int(value["first"]))


def line_of(head: Head, time: str, event: str, fields: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Return the line of the next entry after a head, and the entry. Fields that are empty are left out."""
    body: dict[str, Any] = {"chain": head.chain, "seq": head.seq + 1, "time": time, "event": event}
    body |= {name: _short(value) for name, value in fields.items() if value not in ("", None, [], 0)}
    body["prev"] = head.hash
    body["hash"] = _hash(body)
    return to_line(body), body


def parse(line: bytes) -> dict[str, Any]:
    """Return the entry of a line. Errors: ValueError that says what is wrong with it alone."""
    try:
        entry = json.loads(line)
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("seq"), int) or not isinstance(entry.get("event"), str):
        raise ValueError("is not an entry")
    if not all(isinstance(entry.get(name), str) for name in ("chain", "time", "prev", "hash")):
        raise ValueError("is not an entry")
    body = {name: value for name, value in entry.items() if name != "hash"}
    if entry["hash"] != _hash(body):
        raise ValueError("was changed: its hash does not fit")
    return entry


def _hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_line(body)).hexdigest()


def to_line(entry: Mapping[str, Any]) -> bytes:
    """Return the line of an entry, with its end."""
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode() + b"\n"


def _short(value: Any) -> Any:
    return value[: _MAX_TEXT - 1] + "…" if isinstance(value, str) and len(value) > _MAX_TEXT else value
