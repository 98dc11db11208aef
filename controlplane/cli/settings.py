"""The server's settings. A flag overrides the environment, which overrides the file, which overrides the default."""

from __future__ import annotations

import os
from collections.abc import Mapping as Map
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from controlplane.cli.document import Mapping, Scalar, documents
from controlplane.cli.exits import FilesError, Place, Problem, file_error, unreadable
from controlplane.cli.files import MAX_BYTES
from controlplane.config import Address, Config
from controlplane.errors import Code, Error, invalid

_COUNTS = ("max_streams_per_node", "max_names_per_stream", "audit_megabytes")
_ACCESS_FILES = ("access", "api_tokens", "api_tls_cert", "api_tls_key", "api_client_ca")
_TLS_FILES = ("xds_tls_cert", "xds_tls_key", "xds_client_ca", "xds_identities", "xds_crl")
_SECONDS = ("grace", "max_stream_age", "resource_ttl", "load_report_interval", "keep_withdrawn_keys")
# The variable with the sealing keys themselves (`store/key_file.py`).
KEY_VARIABLE = "TURNOUT_SECRET_KEY"
# Names in the settings file. The flag of `log_format` is `--log-format`, and its variable is `TURNOUT_LOG_FORMAT`.
SETTINGS = (
    "data",
    "api",
    "xds",
    "metrics",
    "xds_transport",
    "log_format",
    "log_level",
    "secret_key_file",
    *_ACCESS_FILES,
    *_TLS_FILES,
    "secret_key_command",
    "workers",
    "audit",
    "audit_export",
    "probe",
    "insecure",
    "patches",
    *_SECONDS,
    *_COUNTS,
)
# Settings that are on or off.
SWITCHES = ("probe", "insecure")
# Settings that had another name before: old name -> new name. An old name is an error that names the new one.
RENAMED = {"xds_shell": "xds_transport"}
# Settings that also accept 0, although it is below their range.
_ZERO_MEANS_NEVER = ("max_stream_age", "resource_ttl", "keep_withdrawn_keys")


def config(
    flags: Map[str, str | None], file: str | None, environ: Map[str, str] | None = None, *, serving: bool = False
) -> Config:
    """Return the Config from flags by setting name, the settings file and the environment. `serving`: for a server.

    Errors: INVALID_ARGUMENT that names the flag, the variable or the line of the file.
    """
    env = os.environ if environ is None else environ
    chosen: dict[str, tuple[str, str]] = {}  # setting -> its text and its source
    if file:
        chosen |= read(file)
    for old, new in RENAMED.items():
        if env.get(_variable(old)):
            raise invalid(_variable(old), f"is now called {_variable(new)}")
    for name in SETTINGS:
        variable = _variable(name)
        if env.get(variable):
            chosen[name] = (env[variable], variable)
    for name, value in flags.items():
        if value is not None:
            chosen[name] = (value, "--" + name.replace("_", "-"))
    values: dict[str, Any] = {} if "data" in chosen else {"data": default_data(env)}
    if text := env.get(KEY_VARIABLE):
        # The only setting without a flag and a line in the file: others could read it there.
        values["secret_key"] = text
        if environ is None:
            del os.environ[KEY_VARIABLE]  # no child process inherits it
    for name, (text, source) in chosen.items():
        values[name] = _value(name, text, source)
    try:
        settings = Config(**values)
        if serving:
            settings.check_open()
        return settings
    except Error as error:
        sources = {name: source for name, (_, source) in chosen.items()} | {"secret_key": KEY_VARIABLE}
        lines = "\n".join(
            f"{sources.get(v.field, v.field)}: {v.description}{', or 0 for never' if v.field in _ZERO_MEANS_NEVER else ''}"
            for v in error.violations
        )
        raise Error(error.code, error.reason, lines or error.message) from None


def flags(params: Map[str, Any]) -> dict[str, str | None]:
    """Return the flags by setting name, from the parameters of a command that has all settings as options."""
    switches = {None: None, True: "on", False: "off"}
    return {name: switches[params[name]] if name in SWITCHES else params[name] for name in SETTINGS}


def default_data(environ: Map[str, str], current: Path = Path()) -> Path:
    """Return the directory of the store that no setting names.

    | environment | directory |
    |---|---|
    | STATE_DIRECTORY, as systemd sets it for a service with `StateDirectory=` | the first directory in it |
    | XDG_STATE_HOME, if it is absolute | `$XDG_STATE_HOME/turnout` |
    | HOME, if it exists and is not `/` | `~/.local/state/turnout` |
    | none of them: a service without a home | `/var/lib/turnout` |

    Errors: FAILED_PRECONDITION / STORE_LOST if only the default of earlier versions, `turnout-data` in the `current`
    directory, holds a store.
    """
    from controlplane.store.sqlite.earlier_use import has_database

    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if environ.get("STATE_DIRECTORY"):
        directory = Path(environ["STATE_DIRECTORY"].partition(":")[0])
    elif state.startswith("/"):
        directory = Path(state, "turnout")
    elif home and home != "/" and Path(home).is_dir():
        directory = Path(home, ".local", "state", "turnout")
    else:
        directory = Path("/var/lib/turnout")
    earlier = current / "turnout-data"
    if has_database(earlier) and not has_database(directory):
        message = (
            f"the default of --data is {directory} now, and it holds no store. {earlier}, the default of earlier versions, "
            f"holds one: start with --data {earlier}, or move that directory to {directory}"
        )
        raise Error(Code.FAILED_PRECONDITION, "STORE_LOST", message)
    return directory


def read(file: str) -> dict[str, tuple[str, str]]:
    """Read a settings file of `name: value` lines in YAML. Return each text with its place. Errors: FilesError."""
    try:
        with open(file, "rb") as opened:
            text = opened.read(MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise unreadable(file, error) from None
    except UnicodeDecodeError:
        raise file_error(file, 0, "is not UTF-8") from None
    settings: dict[str, tuple[str, str]] = {}
    problems: list[Problem] = []
    for document in documents(text, file):
        if not isinstance(document, Mapping):
            if not (isinstance(document, Scalar) and not document.text):
                problems.append(Problem(Place(file, document.line), "", "must be `name: value` lines"))
            continue
        for name, (key, value) in document.entries.items():
            place = Place(file, key.line)
            if name in RENAMED:
                problems.append(Problem(place, "", f"{name} is now called {RENAMED[name]}"))
            elif name not in SETTINGS:
                close = get_close_matches(name.replace("-", "_"), SETTINGS, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(SETTINGS)}"
                problems.append(Problem(place, "", f"unknown setting '{name[:80]}'; {hint}"))
            elif not isinstance(value, Scalar):
                problems.append(Problem(place, name, "must be a single value"))
            else:
                settings[name] = (value.text, f"{place}: {name}")
    if problems:
        raise FilesError(problems)
    return settings


def renamed_flag(flag: str) -> str:
    """Return an error text that names the new flag in place of an old one; empty for a flag that was never renamed."""
    new = RENAMED.get(flag.removeprefix("--").replace("-", "_"))
    return f"{flag} is now called --{new.replace('_', '-')}" if new else ""


def _variable(name: str) -> str:
    return f"TURNOUT_{name.upper()}"


def _value(name: str, text: str, source: str) -> Any:
    if name == "metrics" and text == "off":
        return None
    if name in ("api", "xds", "metrics"):
        return Address.parse(text, source)
    if name == "access":
        from controlplane.access.document import parse
        from controlplane.api.watched_files import read_text

        parse(read_text(Path(text), source), text)  # checked now, so that the error names the flag
        return Path(text)
    if name in ("data", "secret_key_file", *_ACCESS_FILES, *_TLS_FILES):
        return Path(text)
    if name == "audit_export":
        from controlplane.audit.export import check_target

        check_target(text, source)
        return text
    if name == "patches":
        from controlplane.patch_functions import installed

        installed(text, source)  # checked now, so that the error names the flag
        return text
    if name in _SECONDS:
        try:
            return float(text)
        except ValueError:
            raise invalid(source, f"'{text[:80]}' is not a number of seconds") from None
    if name == "workers" and text == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if name in SWITCHES:
        if text.lower() not in ("on", "off", "true", "false"):
            raise invalid(source, f"'{text[:80]}' is neither on nor off")
        return text.lower() in ("on", "true")
    if name in (*_COUNTS, "workers"):
        try:
            return int(text)
        except ValueError:
            or_auto = ", nor auto" if name == "workers" else ""
            raise invalid(source, f"'{text[:80]}' is not a whole number{or_auto}") from None
    return text
