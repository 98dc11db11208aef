"""Checks the files of an audit log, alone and against what the store knows of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from controlplane.audit.entries import NOTHING, Head, parse
from controlplane.audit.files import lines

# Problems that a report has. After the first one, others follow from it.
_MAX_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check."""

    chain: str
    first: int
    last: int
    # The newest entry that the store knows of; 0 if it knows none.
    known: int
    problems: tuple[str, ...]


def verify(directory: Path, heads: Iterable[Head] = ()) -> Report:
    """Check the hashes and the numbers of all entries, and compare them with the heads that the store has."""
    problems: list[str] = []
    known = {head.chain: head for head in heads}
    at: Head | None = None
    first, front, earlier = 0, 0, ""
    for path, number, line in lines(directory):
        place = f"{path.name}:{number}"
        try:
            entry = parse(line)
        except ValueError as error:
            problems.append(f"{place}: {error}")
            at = None  # what follows is compared with itself
            continue
        if at is not None:
            problems += _step(place, at, entry)
        elif not first:
            first = entry["seq"]
            if first == 1 and entry["prev"] != NOTHING:
                problems.append(f"{place}: is the first entry, and names one before it")
        if entry.get("cut"):
            problems.append(f"{place}: {entry['cut']} entries before it were missing when the server started")
        front = entry["first"] if entry["event"] == "dropped" and isinstance(entry.get("first"), int) else front
        earlier += " ".join(map(str, entry.get("earlier", ()))) if entry["event"] == "begin" else ""
        head = known.get(entry["chain"])
        if head is not None and head.seq == entry["seq"] and head.hash != entry["hash"]:
            problems.append(f"{place}: is not the entry {head.seq} that the store knows")
        at = Head(entry["chain"], entry["seq"], entry["hash"])
    chain, last = (at.chain, at.seq) if at is not None else ("", 0)
    if first and first != (front or 1):
        problems.insert(0, f"entries {front or 1} to {first - 1} are missing" if first > (front or 1) else "too many entries")
    for head in known.values():
        if head.chain == chain and head.seq > last:
            problems.append(f"entries {last + 1} to {head.seq} are missing: the store knows the log up to {head.seq}")
        elif head.chain != chain and f"{head.chain}:" not in earlier:
            problems.append(f"the log {head.chain} is missing: the store knows {head.seq} entries of it")
    if len(problems) > _MAX_PROBLEMS:
        problems = [*problems[:_MAX_PROBLEMS], f"and {len(problems) - _MAX_PROBLEMS} more"]
    return Report(chain, first, last, known[chain].seq if chain in known else 0, tuple(problems))


def _step(place: str, before: Head, entry: dict[str, object]) -> list[str]:
    """Return what is wrong between two entries."""
    if entry["chain"] != before.chain:
        return [f"{place}: is of another log"]
    if entry["seq"] != before.seq + 1:
        return [f"{place}: has the number {entry['seq']} after {before.seq}"]
    return [f"{place}: does not follow the entry before it"] if entry["prev"] != before.hash else []
