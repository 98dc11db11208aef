"""The commands `backup` and `restore`: the store as a file. They work on the data directory, also while the server runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.cli import messages, output, settings, wording
from controlplane.cli.options import DEFAULT_DATA, Output
from controlplane.cli.output import Format, line
from controlplane.errors import Error

if TYPE_CHECKING:
    from controlplane.store.sqlite.backup import Summary

Data = Annotated[str | None, typer.Option("--data", metavar="DIR", help=f"Folder of the store. Default: {DEFAULT_DATA}.")]
Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE", envvar="TURNOUT_CONFIG", help="Settings file of the server.")
]


def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="The file to write; it must not exist.")],
    data: Data = None,
    config: Config = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Write a backup of the store to a file, also while the server runs.

    The backup is consistent, is checked, and only its owner can read it. It contains the history, the records and the
    sealed private keys, but never the sealing key: keep a copy of that in another place.

    \b
    turnout backup /backups/turnout-$(date +%F).db
    turnout backup state.db --data /var/lib/turnout

    JSON: the command's own summary, not a message of the API.
    """
    # Imported here because the other commands need none of it, and start faster.
    from controlplane.store.sqlite import backup as store

    directory = settings.config({"data": data}, config).data
    summary = store.back_up(directory, Path(file))
    if form is Format.NAME:
        output.raw(file)
    elif form is not Format.TABLE:
        messages.print_data(_data(summary, form) | {"file": file}, form)
    else:
        line(f"Backup of {_content(summary)}: {file}, {_size(summary.bytes)}, checked.")
        if summary.sealing_key_ids:
            line(
                "It has sealed private keys, and not the key that opens them. Keep a copy of the sealing key (the file "
                f"secret.key in {directory}, or the one that --secret-key-file names) in another place."
            )


def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="The backup.")],
    data: Data = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Restore into a folder that holds a store; its files are moved into a folder in it."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the backup, and show what it contains. Change nothing.")
    ] = False,
    config: Config = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Make a store from a backup, in a folder that no server uses.

    The backup is checked first. The store keeps the numbers of its revisions and gets a new history ID, so that etags of
    the lost history are refused. Put your copy of the sealing key beside it before you start the server.

    \b
    turnout restore /backups/turnout-2026-11-28.db --dry-run
    turnout restore /backups/turnout-2026-11-28.db --data /var/lib/turnout

    JSON: the command's own summary, not a message of the API.
    """
    # Imported here because the other commands need none of it, and start faster.
    from controlplane.store.sqlite import backup as store

    if dry_run:
        summary = store.inspect(Path(file))
        if form is Format.TABLE:
            line(f"{file}: {_content(summary)}, {_size(summary.bytes)}, checked. Nothing was restored.")
        else:
            messages.print_data(_data(summary, form) | {"file": file}, form)
        return
    directory = settings.config({"data": data}, config).data
    earlier = store.inspect(Path(file))
    summary, aside = store.restore(Path(file), directory, replace=replace)
    if form is Format.NAME:
        output.raw(str(directory))
    elif form is not Format.TABLE:
        extra = {"data": str(directory), messages.key("restored_history", form): earlier.history}
        messages.print_data(_data(summary, form) | extra, form)
    else:
        _print_restored(earlier, summary, directory, aside)


def _print_restored(earlier: Summary, summary: Summary, directory: Path, aside: Path | None) -> None:
    """Print what was restored, and what happens next."""
    from controlplane.store.key_file import KEY_FILE

    line(f"Restored {_content(summary)} to {directory}.")
    if aside is not None:
        line(f"The files that were there before are in {aside}.")
    if earlier.history:
        line(f"It is a new history: etags of history {earlier.history} are refused (OTHER_HISTORY).")
    if summary.revision:
        line(
            f"When the server starts, Envoys get the state of revision {summary.revision}: later revisions are lost, and "
            "traffic moves back to the splits of the backup. An Envoy that would lose a model, listener or cluster is held "
            "back: it keeps what it has, and `turnout status` says what to do. To look at the state first, start the server "
            f"on a port that no Envoy knows: turnout serve --data {directory} --xds 127.0.0.1:0"
        )
    if summary.sealing_key_ids and not _has_keys(directory, summary):
        line(
            f"It has sealed private keys, and {directory / KEY_FILE} does not open them: put your copy of the sealing key "
            "there (mode 0600), or name it with --secret-key-file, before you start the server.",
            "yellow",
        )


def _has_keys(directory: Path, summary: Summary) -> bool:
    """Return True if the key file in the directory opens all private keys."""
    from controlplane.store import key_file
    from controlplane.store.key_file import KEY_FILE

    try:
        return not key_file.load(directory / KEY_FILE, create=False).missing(set(summary.sealing_key_ids))
    except Error:
        return False


def _content(summary: Summary) -> str:
    if not summary.revision:
        return f"a store without a revision (history {summary.history})"
    history = f", history {summary.history}" if summary.history else ""
    return f"revision {summary.revision} ({wording.when(_timestamp(summary.time))}{history})"


def _data(summary: Summary, form: Format) -> dict[str, Any]:
    """Return a summary as data."""
    return {
        "history": summary.history,
        "revision": summary.revision,
        messages.key("create_time", form): _timestamp(summary.time).ToJsonString(),
        "bytes": summary.bytes,
        messages.key("sealing_key_ids", form): sorted(summary.sealing_key_ids),
    }


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1e3:.0f} KB"
