"""The command `audit`: reads and checks the audit log, on the machine of the server. It calls no server."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from controlplane.cli import messages, output, settings
from controlplane.cli.backup import Config, Data
from controlplane.cli.exits import Ended, Exit
from controlplane.cli.options import Output
from controlplane.cli.output import Format
from controlplane.cli.wording import plural
from controlplane.errors import Code, Error, invalid

if TYPE_CHECKING:
    from controlplane.audit.verify import Report
    from controlplane.config import Config as ServerConfig

Entry = dict[str, Any]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_COLUMNS = ("TIME", "WHO", "FROM", "CALL", "OBJECTS", "RESULT", "WHY")
_SHOWN_OBJECTS = 3


class Action(StrEnum):
    """The values of ACTION."""

    LIST = "list"
    VERIFY = "verify"


def audit(
    action: Annotated[Action, typer.Argument(metavar="[list|verify]", help="What to do.")] = Action.LIST,
    data: Data = None,
    directory: Annotated[
        str | None, typer.Option("--audit", metavar="DIR", help="Folder of the audit log. Default: audit in --data.")
    ] = None,
    who: Annotated[str, typer.Option("--who", metavar="TEXT", help="Only callers whose identity or note has this text.")] = "",
    call: Annotated[str, typer.Option("--call", metavar="TEXT", help="Only calls whose name has this text.")] = "",
    obj: Annotated[str, typer.Option("--object", metavar="TEXT", help="Only entries about an object with this text.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only calls that were refused or failed.")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="AGE|TIME", help="Only entries since then, like 2h or a time.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Most entries to list, the newest.")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="Also attempts, and entries about the log itself.")] = False,
    config: Config = None,
    form: Output = Format.TABLE,
) -> None:
    r"""List the audit log, or verify that nobody changed it.

    The log has every change that was asked for, with its outcome, and every refused call; of strangers without a valid
    credential at most 10 calls in a minute. It is in local files of the server's machine, so run this there, as the server's
    user. The server may run meanwhile.

    `verify` checks that each entry fits the one before, and compares the log with the newest entry that the store knows: so an
    entry that was changed, added or removed is found, also at the end. Its exit code is 3 then.

    \b
    turnout audit --since 2h --object models/iris
    turnout audit --refused --who anna -o json
    turnout audit verify --data /var/lib/turnout

    JSON: the command's own list, not a message of the API.
    """
    chosen = settings.config({"data": data, "audit": directory}, config)
    folder = chosen.audit_directory
    if folder is None:
        raise Error(Code.FAILED_PRECONDITION, "AUDIT_OFF", "the settings turn the audit log off: name its folder with --audit")
    from controlplane.audit.files import paths

    if not paths(folder):
        raise Error(Code.FAILED_PRECONDITION, "AUDIT_MISSING", f"{folder} has no audit log: name its folder with --audit")
    if action is Action.VERIFY:
        _verify(chosen, folder, form)
        return
    tests = _tests(who, call, obj, _time(since) if since else "", refused=refused, everything=everything)
    entries = deque((e for e in _entries(folder) if all(test(e) for test in tests)), maxlen=limit)
    if form is Format.TABLE:
        output.show(output.table(_COLUMNS, map(_row, entries)))
    elif form is Format.NAME:
        for entry in entries:
            output.raw(str(entry["seq"]))
    else:
        messages.print_data({"entries": list(entries)}, form)


def _entries(folder: Path) -> Iterator[Entry]:
    """Yield the entries of a log. Lines that are none are left out: `verify` reports them."""
    from controlplane.audit.entries import parse
    from controlplane.audit.files import lines

    for _, _, line in lines(folder):
        try:
            yield parse(line)
        except ValueError:
            continue


def _tests(who: str, call: str, obj: str, since: str, *, refused: bool, everything: bool) -> list[Callable[[Entry], bool]]:
    """Return the tests that an entry must pass to be listed."""
    tests: list[Callable[[Entry], bool]] = []
    if not everything:
        tests.append(lambda e: e["event"] in ("call", "stranger"))
    if since:
        tests.append(lambda e: e["time"] >= since)
    if who:
        tests.append(lambda e: who in e.get("identity", "") or who in e.get("author_note", ""))
    if call:
        tests.append(lambda e: call.lower() in e.get("call", "").lower())
    if obj:
        tests.append(lambda e: any(obj in name for name in e.get("objects", ())))
    if refused:
        tests.append(lambda e: e.get("code", "OK") != "OK")
    return tests


def _row(entry: Entry) -> tuple[str | Text, ...]:
    objects = entry.get("objects", [])
    shown = ", ".join(objects[:_SHOWN_OBJECTS]) + (
        f" and {len(objects) - _SHOWN_OBJECTS} more" if objects[_SHOWN_OBJECTS:] else ""
    )
    note = entry.get("author_note", "")
    who = entry.get("identity") or (f"({note})" if note else "")
    if entry["event"] not in ("call", "stranger", "attempt"):
        return entry["time"], "", "", entry["event"], "", "", ""
    code = entry.get("code", "attempt")
    result: str | Text = (
        Text(f"{code} {entry.get('reason_code', '')}".strip(), "red") if code not in ("OK", "attempt") else code
    )
    if code == "OK":
        result = f"revision {entry['revision']}" if entry.get("revision") and not entry.get("unchanged") else "OK"
    why = entry.get("error") or entry.get("reason", "")
    if entry.get("unlogged"):
        why = f"{why} ({plural(entry['unlogged'], 'earlier call')} without an entry)"
    return entry["time"], who, entry.get("from", ""), entry.get("call", ""), shown, result, why


def _verify(config: ServerConfig, folder: Path, form: Format) -> None:
    """Print the result of the check. Errors: Ended if something is wrong."""
    from controlplane.audit.heads import KIND, decode
    from controlplane.audit.verify import verify
    from controlplane.store.sqlite.backup import records_of

    heads = [head for record in records_of(config.data, KIND.name) if (head := decode(record)) is not None]
    report = verify(folder, heads)
    if form is not Format.TABLE:
        messages.print_data(_data(report, form), form)
    elif not report.problems:
        output.line(
            f"The audit log is whole: entries {report.first} to {report.last} of log {report.chain}. The store knows it up to "
            f"entry {report.known}."
        )
    if report.problems:
        problems = "\n".join(report.problems) if form is Format.TABLE else ""
        raise Ended(Exit.INVALID, f"the audit log in {folder} was changed:\n{problems}" if problems else "")


def _data(report: Report, form: Format) -> dict[str, Any]:
    data = {"chain": report.chain, "first": report.first, "last": report.last, "known_to_the_store": report.known}
    return {messages.key(name, form): value for name, value in data.items()} | {"problems": list(report.problems)}


def _time(text: str) -> str:
    """Return a time as entries have it. Errors: INVALID_ARGUMENT."""
    if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
        seconds = time.time() - int(match[1]) * _UNITS[match[2]]
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6]
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(
            "--since", f"'{text[:80]}' is neither an age, like 30m, 2h or 7d, nor a time, like 2026-11-29T10:00"
        ) from None
    return parsed.astimezone(UTC).isoformat(timespec="milliseconds")[:-6]
