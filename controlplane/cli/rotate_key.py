"""The command `rotate-key`: seals everything in the store with a new sealing key. It works on the data directory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controlplane.cli import messages, output, settings
from controlplane.cli.backup import Config, Data
from controlplane.cli.options import Output
from controlplane.cli.output import Format, line
from controlplane.cli.wording import plural
from controlplane.errors import Code, Error

if TYPE_CHECKING:
    from controlplane.config import Config as ServerConfig
    from controlplane.store.sqlite.sealed_keys import Upkeep


def rotate_key(
    data: Data = None,
    secret_key_file: Annotated[
        str | None, typer.Option("--secret-key-file", metavar="FILE", help="The file of the key. Default: DIR/secret.key.")
    ] = None,
    secret_key_command: Annotated[
        str | None, typer.Option("--secret-key-command", metavar="COMMAND", help="Instead: command that prints the keys.")
    ] = None,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Remove the old keys from the file: older backups then can't be started.")
    ] = False,
    config: Config = None,
    form: Output = Format.TABLE,
) -> None:
    r"""Seal all private keys in the store with a new sealing key, while the server is stopped.

    A new key is added as the first line of the key file. Then every private key is sealed anew, and every row of the store
    gets a new MAC, in one transaction: if the process is killed, run the command again. The server does the same at its start
    when the first key is a new one. So with a command (KMS) or the variable TURNOUT_SECRET_KEY, which Turnout can't change,
    let them give the new key first and the old one after it, and restart the server or run this command.

    \b
    systemctl stop turnout
    turnout rotate-key --data /var/lib/turnout
    systemctl start turnout

    JSON: the command's own summary, not a message of the API.
    """
    chosen = settings.config(
        {"data": data, "secret_key_file": secret_key_file, "secret_key_command": secret_key_command}, config
    )
    # Imported here because the other commands need none of it, and start faster.
    from controlplane.store.key_file import KEY_FILE, add_new_key, drop_old_keys
    from controlplane.store.sqlite.earlier_use import has_database

    if not has_database(chosen.data):
        message = f"{chosen.data} holds no store: name the directory of the server with --data"
        raise Error(Code.FAILED_PRECONDITION, "STORE_MISSING", message)
    file = chosen.secret_key_file or chosen.data / KEY_FILE
    has_file = not (chosen.secret_key or chosen.secret_key_command)
    upkeep = asyncio.run(_opened(chosen))  # the key is right, and no server uses the store
    if has_file:
        add_new_key(file)
        upkeep = asyncio.run(_opened(chosen))
    dropped = drop_old_keys(file) if has_file and drop_old else 0
    _print(upkeep, file if has_file else None, dropped, form)


async def _opened(config: ServerConfig) -> Upkeep:
    """Open the store, which seals everything with the first key, and close it. Errors: those of the store."""
    from controlplane.store.key_file import key_source
    from controlplane.store.sqlite import open_store

    keys = key_source(config.data, config.secret_key_file, text=config.secret_key, command=config.secret_key_command)
    store = await open_store(config.data, keys)
    await store.close()
    return store.upkeep


def _print(upkeep: Upkeep, file: Path | None, dropped: int, form: Format) -> None:
    if form is Format.NAME:
        output.raw(upkeep.sealed_with)
    elif form is not Format.TABLE:
        summary = {"sealing_key_id": upkeep.sealed_with, "resealed_keys": upkeep.resealed, "dropped_keys": dropped}
        messages.print_data({messages.key(name, form): value for name, value in summary.items()}, form)
    else:
        if not upkeep.new_macs:
            line(f"Everything is sealed with the first key, {upkeep.sealed_with}, already: nothing was changed.")
            return
        keys = plural(upkeep.resealed, "private key")
        line(f"Sealed {keys} with key {upkeep.sealed_with}, and all rows have new MACs.")
        if file is None:
            line("The store does not need the old keys any more. Keep them for as long as you keep older backups.")
        elif dropped:
            line(f"Removed {plural(dropped, 'old key')} from {file}: older backups can't be started without them.")
        else:
            line(
                f"The old keys are still in {file}, for older backups; --drop-old removes them. Copy the file to a safe place."
            )
