"""The command `check`: what a server with these settings leaves open. It reads files' modes, and starts nothing."""

from __future__ import annotations

import inspect
import os
import stat
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from controlplane.cli import messages, output, settings
from controlplane.cli.options import Output
from controlplane.cli.output import Format
from controlplane.cli.serve import serve
from controlplane.cli.wording import plural
from controlplane.config import Config, Listener

_NOT_OPTIONS = ("ctx", "init")  # parameters of `serve` that are no settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    subject: str
    # True if somebody else can reach, read or change it.
    open: bool
    text: str


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with every setting of `serve` as an option, after its own options."""
    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())
    more = [p for p in inspect.signature(serve, eval_str=True).parameters.values() if p.name not in _NOT_OPTIONS]

    def wrapped(**kwargs: Any) -> None:
        command(**{p.name: kwargs[p.name] for p in own})

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    # Typer reads the options of a command from these two.
    wrapped.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    hints = typing.get_type_hints(serve, include_extras=True)
    own_hints = typing.get_type_hints(command, include_extras=True)
    wrapped.__annotations__ = {**{p.name: hints[p.name] for p in more}, **own_hints}
    return wrapped


@with_settings
def check(ctx: typer.Context, form: Output = Format.TABLE) -> None:
    r"""List what a server with these settings leaves open: ports, credentials, the sealing key, the audit log, file modes.

    Run it on the server's machine, as the server's user, with the same flags, environment and settings file as
    `turnout serve`. It starts nothing and connects to nothing.

    \b
    turnout check --config /etc/turnout/turnout.yaml
    turnout check --xds 0.0.0.0:18000 --insecure -o json

    JSON: the command's own list, not a message of the API.
    """
    config = settings.config(settings.flags(ctx.params), ctx.params["config"])
    findings = list(findings_of(config))
    count = sum(f.open for f in findings) + sum(listener.open for listener in config.listeners)
    if form is Format.TABLE:
        output.show(output.table(("PORT", "FOR", "ADDRESS", "REACHED FROM", "TLS", "CREDENTIALS"), _rows(config.listeners)))
        output.line()
        rows = [(f.subject, Text("OPEN", "yellow") if f.open else "ok", f.text) for f in findings]
        output.show(output.table(("CHECK", "RESULT", "DETAILS"), rows))
        output.line()
        output.line(f"{plural(count, 'thing')} open." if count else "Nothing is open.", "yellow" if count else None)
    elif form is Format.NAME:
        for name in [*(li.name for li in config.listeners if li.open), *(f.subject for f in findings if f.open)]:
            output.print_name(name)
    else:
        messages.print_data(_data(config.listeners, findings, count), form)


def findings_of(config: Config) -> Iterator[Finding]:
    """Yield everything that is checked beside the ports."""
    yield _credentials(config)
    yield _sealing_key(config)
    yield from _audit(config)
    yield _mode("data folder", config.data, 0o077)
    yield _mode("store", config.data / "turnout.db", 0o077)
    if config.xds_tls_key is not None:
        yield _mode("key of the xDS port", config.xds_tls_key, 0o077)
    if config.api_tls_key is not None:
        yield _mode("key of the API's port", config.api_tls_key, 0o077)
    # Whoever may write one of them gives itself any role.
    for name, path in (("access file", config.access), ("token file", config.api_tokens)):
        if path is not None:
            yield _mode(name, path, 0o022)


def _credentials(config: Config) -> Finding:
    anybody = [listener for listener in config.listeners if not listener.credentials and listener.name != "metrics"]
    if not anybody:
        return Finding("credentials", False, "every client of xDS and of the operator API must have one")
    reached = [listener for listener in anybody if not listener.address.loopback]
    who = "anybody on the network" if reached else "every user of this machine"
    return Finding("credentials", bool(reached), f"{who} may use: {', '.join(li.name for li in reached or anybody)}")


def _sealing_key(config: Config) -> Finding:
    if config.secret_key:
        return Finding("sealing key", False, "from the environment")
    if config.secret_key_command:
        return Finding("sealing key", False, f"from a command: {config.secret_key_command.split()[0]}")
    file = config.secret_key_file or config.data / "secret.key"
    found = _mode("sealing key", file, 0o077)
    if found.open or config.secret_key_file is not None or not file.exists():
        return found
    text = f"{found.text}; in the folder of the store, so whoever gets a copy of the folder has both"
    return Finding("sealing key", False, text)


def _audit(config: Config) -> Iterator[Finding]:
    folder = config.audit_directory
    if folder is None:
        yield Finding("audit log", True, "off: nobody can find out who changed something")
        return
    yield _mode("audit log", folder, 0o077)
    copies = f"entries also go to {config.audit_export}" if config.audit_export else "only on this machine (--audit-export)"
    yield Finding("audit export", False, copies)


def _mode(subject: str, path: Path, forbidden: int) -> Finding:
    """Check that a file has none of the `forbidden` bits of its mode, and that this user or root owns it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return Finding(subject, False, f"{path} does not exist yet")
    except OSError as error:
        return Finding(subject, False, f"{path} can't be read by this user: {(error.strerror or '').lower()}")
    mode = stat.S_IMODE(status.st_mode)
    text = f"{path}, mode {mode:04o}"
    if mode & forbidden:
        return Finding(subject, True, f"{text}: other users of this machine may use it; chmod {mode & ~forbidden:04o} {path}")
    if status.st_uid not in (0, os.geteuid()):
        return Finding(subject, True, f"{text}, owned by user {status.st_uid}, who is neither this user nor root")
    return Finding(subject, False, text)


def _rows(listeners: Sequence[Listener]) -> Iterator[tuple[str | Text, ...]]:
    for listener in listeners:
        where = "this machine" if listener.address.loopback else "other machines"
        tls = "yes" if listener.tls else "no"
        style = "yellow" if listener.open else ""
        cells = (listener.name, listener.purpose, str(listener.address), where, tls, listener.credentials or "none")
        yield tuple(Text(cell, style) for cell in cells)


def _data(listeners: Sequence[Listener], findings: Sequence[Finding], count: int) -> dict[str, Any]:
    ports = [
        {
            "name": listener.name,
            "address": str(listener.address),
            "loopback": listener.address.loopback,
            "tls": listener.tls,
            "credentials": listener.credentials,
            "open": listener.open,
        }
        for listener in listeners
    ]
    checks = [{"subject": f.subject, "open": f.open, "text": f.text} for f in findings]
    return {"ports": ports, "checks": checks, "open": count}
