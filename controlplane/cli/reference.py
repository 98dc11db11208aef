"""The page docs/cli.md, made from the help of the commands.

    python -m controlplane.cli.reference docs/cli.md

The same commands make the same bytes, whatever the terminal and the environment.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import typer

from controlplane.cli.commands import COMMANDS, app
from controlplane.cli.exits import MEANINGS

_INTRODUCTION = """# Command line

`make protos` makes this page from `turnout COMMAND --help`. Don't edit it.

Options before the command: `--api HOST:PORT` (environment: `TURNOUT_API`; default `127.0.0.1:18080`) is the address of the
operator API, and `--retry-for SECONDS` (environment: `TURNOUT_RETRY_FOR`; default 5) is how long calls to an unreachable
server are retried. Both can also follow the command. `TURNOUT_AUTHOR` is the author of changes in the history; the default is
`user@host`.

## Output for programs
Every command that reads or changes state takes `--output` (`-o`). Results go to stdout; progress, notices and errors go to
stderr.

| format | prints |
|---|---|
| `table` | the default, for people; its layout may change |
| `json` | messages of the API as [protojson]: names in lowerCamelCase, 64-bit integers as strings, times in RFC 3339 |
| `yaml` | the same values with the field names of files (snake_case) |
| `name` | resource names only, one a line |

The section of each command names its message; [api.md](api.md) describes the fields. Reports contain every field, also zeros
and empty lists. Objects of desired state (gateways, models, secrets) contain the fields that are set, so `turnout apply` can
read them back. A few keys are not fields of the message: `changed`, `progress`, `disconnectedNodes` and `needsForce` are added
where a section says so. `changed` is false if the state was like this already. `--watch` prints one JSON object a line.

[protojson]: https://protobuf.dev/programming-guides/json/

With `-o json`, errors are JSON, too: the last line on stderr is an object `error` with `code` (the gRPC status code; USAGE,
TIMEOUT, REFUSED, INCOMPLETE, INTERRUPTED and UNEXPECTED come from the command line itself), `reason`, `message`,
`violations` (each with `field` and `description`), `metadata` and `exitCode`.

The commands `serve`, `schema` and `completion` take no `--output`, and `bootstrap` and `demo` print no message of the API.

## Exit codes
"""


def page() -> str:
    """Return the whole page as Markdown."""
    group: Any = typer.main.get_command(app)
    root = typer.Context(group, info_name="turnout")
    parts = [
        _INTRODUCTION + "\n".join(["| code | meaning |", "|---:|---|", *(f"| {c.value} | {m} |" for c, m in MEANINGS.items())])
    ]
    for panel, functions in COMMANDS.items():
        parts.append(f"## {panel}")
        parts += [_section(group.commands[name], root, f"turnout {name}") for name in functions]
        nested = [c for c in group.commands.values() if hasattr(c, "commands") and c.rich_help_panel == panel]
        for command in nested:
            context = typer.Context(command, info_name=command.name, parent=root)
            parts += [_section(c, context, f"turnout {command.name} {name}") for name, c in command.commands.items()]
    return "\n\n".join(parts) + "\n"


def _section(command: Any, parent: typer.Context, name: str) -> str:
    context = typer.Context(command, info_name=command.name, parent=parent)
    arguments = [p for p in command.get_params(context) if p.param_type_name == "argument"]
    usage = " ".join([name, "[OPTIONS]", *(p.metavar + ("..." if p.nargs == -1 else "") for p in arguments)])
    parts = [f"### {name}", f"```text\n{usage}\n```", *_paragraphs(command.help or "")]
    rows = [
        record for p in command.get_params(context) if (record := p.get_help_record(context)) and "--help" not in record[0]
    ]
    if rows:
        lines = [f"| `{_cell(_without_type(names))}` | {_cell(text)} |" for names, text in rows]
        parts.append("\n".join(["| argument or option | meaning |", "|---|---|", *lines]))
    return "\n\n".join(parts)


def _paragraphs(text: str) -> list[str]:
    r"""Return a help text as Markdown: a block after `\b` keeps its lines, other paragraphs are filled again."""
    paragraphs = []
    for paragraph in text.replace("\\[", "[").strip().split("\n\n"):
        if paragraph.startswith("\b\n"):
            paragraphs.append(f"```text\n{paragraph[2:]}\n```")
        else:
            paragraphs.append(" ".join(paragraph.split()))
    return paragraphs


def _without_type(names: str) -> str:
    """Return an argument's or option's names without the Python type that typer adds."""
    return re.sub(r" <(list\[)?(str|int|float)\]?>$", "", names)


def _cell(text: str) -> str:
    """Return a text for a table cell."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def main() -> None:
    """Write the page to the file that the command line names."""
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
