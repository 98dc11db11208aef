"""The check of a file before it is used: damage is found at the start, and not at the first call that reads it.

| check | finds |
|---|---|
| SQLite's integrity check | a damaged structure: pages, indexes, lengths, types of values |
| header and schema (`schema.py`) | a damaged header, table, index or trigger |
| digests (`digests.py`) | a changed value in any row, a missing row, a row too many |
| numbers | a gap in the numbers of revisions, a reference to a revision that does not exist |
| head | a query of the head that differs from the result of applying the changes of all revisions in order |

The objects are also decoded: `history.py` does that with the sealing keys, because a secret can't be decoded without them.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from controlplane.errors import Error
from controlplane.store.sqlite.digests import damaged_row, raw_text
from controlplane.store.sqlite.explain import corrupt, explain

# Problems of SQLite's check that the error shows.
_MAX_PROBLEMS = 3


def check_structure(db: sqlite3.Connection, path: Path) -> None:
    """Run SQLite's own check. It needs no tables, so it comes before the migration. Errors: STORE_CORRUPT."""
    _check_format(path)
    with raw_text(db):
        rows = db.execute(f"PRAGMA integrity_check({_MAX_PROBLEMS + 1})").fetchall()
    problems = [row[0].decode(errors="replace") for row in rows]
    if problems != ["ok"]:
        more = " and more" if len(problems) > _MAX_PROBLEMS else ""
        raise corrupt(path, "; ".join(problem.strip() for problem in problems[:_MAX_PROBLEMS]) + more)


def _check_format(path: Path) -> None:
    """Check the versions of the file format, which the header has at bytes 18 and 19 (sqlite.org/fileformat2.html#hdr).

    SQLite calls a file with another version read-only.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError:
        return  # SQLite will report it
    if len(header) == 100 and not set(header[18:20]) <= {1, 2}:
        raise corrupt(path, f"its header has the unknown format {header[18]}, {header[19]}")


def check_rows(db: sqlite3.Connection, path: Path) -> None:
    """Check the values in all rows, and that the history has no gap. Errors: STORE_CORRUPT."""
    if problem := damaged_row(db):
        raise corrupt(path, problem)
    oldest, newest, count = db.execute("SELECT min(number), coalesce(max(number), 0), count(*) FROM revisions").fetchone()
    if newest != count or (count and oldest != 1):
        raise corrupt(path, f"table revisions: it holds {count} revisions, and the newest is {newest}")
    for table in ("objects", "requests"):
        (highest,) = db.execute(f"SELECT coalesce(max(revision), 0) FROM {table}").fetchone()
        if highest > newest:
            raise corrupt(path, f"table {table}: it refers to revision {highest}, and the newest is {newest}")
    if db.execute("SELECT count(*) FROM identity").fetchone() != (1,):
        raise corrupt(path, "table identity: it must have one row")
    _check_head(db, path, newest)


def _check_head(db: sqlite3.Connection, path: Path, newest: int) -> None:
    """Compare the objects of the head, as queries find them, with the changes of all revisions in their order."""
    head: dict[str, int] = {}
    for revision, name, exists in db.execute("SELECT revision, name, content IS NOT NULL FROM objects ORDER BY rowid"):
        if head.get(name, 0) > revision:
            raise corrupt(path, f"table objects: revision {revision} of {name} is after revision {head[name]}")
        head.pop(name, None)
        if exists:
            head[name] = revision
    queried = dict(db.execute(HEAD_OBJECTS, (newest,)).fetchall())
    if queried != head:
        name = min({name for name in queried.keys() | head.keys() if queried.get(name) != head.get(name)})
        raise corrupt(
            path, f"table objects, {name}: the newest revision of it is {head.get(name)}, and not {queried.get(name)}"
        )


def explain_damage(error: sqlite3.Error, path: Path) -> Error:
    """Return the `Error` for an error of SQLite while a file is checked. Any that is not about the disk is damage."""
    explained = explain(error, path)
    return corrupt(path, str(error)) if explained.reason == "STORE_FAILED" else explained


# The name and the newest revision of each object that exists as of a revision.
HEAD_OBJECTS = """
SELECT o.name, o.revision
FROM (SELECT name, max(revision) AS revision FROM objects WHERE revision <= ? GROUP BY name) AS newest
JOIN objects AS o USING (name, revision)
WHERE o.content IS NOT NULL
"""
