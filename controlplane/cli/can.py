"""The command `can`: asks an access file, without a server, who may do what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controlplane.access.caller import Caller, parse_identity
from controlplane.access.document import COLLECTIONS, parse
from controlplane.access.roles import Permission
from controlplane.access.rules import Target
from controlplane.cli.exits import Ended, Exit, file_error, unreadable
from controlplane.cli.messages import print_data
from controlplane.cli.output import Format, line
from controlplane.errors import did_you_mean

WORDS = {permission.value: permission for permission in Permission}

User = Annotated[
    str, typer.Argument(metavar="USER", help="The caller: user:NAME, token:NAME or certificate:NAME. NAME alone is a user.")
]
Word = Annotated[str, typer.Argument(metavar="PERMISSION", help=f"One of: {', '.join(WORDS)}.")]
Name = Annotated[
    str,
    typer.Argument(
        metavar="[NAME]", help="The object, like models/iris. For switch, a model's name will do. Without: everything."
    ),
]
File = Annotated[Path, typer.Option("--access", metavar="FILE", envvar="TURNOUT_ACCESS", help="The access file.")]
Groups = Annotated[list[str], typer.Option("--group", metavar="NAME", help="A group in the caller's token. Repeatable.")]
Gateways = Annotated[list[str], typer.Option("--gateway", metavar="NAME", help="A gateway of the object. Repeatable.")]
Labels = Annotated[list[str], typer.Option("--label", metavar="KEY=VALUE", help="A label of the object. Repeatable.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.")]


def can(
    user: User,
    permission: Word,
    name: Name = "",
    *,
    access: File,
    group: Groups = [],  # noqa: B006 -- typer reads it, nobody changes it
    gateway: Gateways = [],  # noqa: B006
    label: Labels = [],  # noqa: B006
    output: Output = Format.TABLE,
) -> None:
    r"""Tell if somebody may do something, by an access file. It asks no server.

    Exit code 0: yes. 1: no, and the reason is printed. Put such lines into the tests of the repository that holds the file.

    \b
    turnout can anna switch iris --access access.yaml
    turnout can anna edit models/iris --access access.yaml --group ml-team
    turnout can token:ci cut gateways/edge --access access.yaml

    JSON: `allowed`, true or false, and `explanation`, a text.
    """
    try:
        rules = parse(access.read_text(encoding="utf-8"), str(access)).rules
    except OSError as error:
        raise unreadable(str(access), error) from None
    except UnicodeDecodeError:
        raise file_error(str(access), 0, "is not UTF-8") from None
    caller = parse_identity(user) or parse_identity(f"user:{user}")
    if caller is None:
        raise typer.BadParameter("is empty", param_hint="USER")
    if permission not in WORDS:
        hint = did_you_mean(permission, WORDS) or f"there are: {', '.join(WORDS)}"
        raise typer.BadParameter(f"'{permission[:80]}' is not a permission; {hint}", param_hint="PERMISSION")
    caller = Caller(caller.credential, caller.name, frozenset(group))
    decision = rules.may(caller, WORDS[permission], _target(name, WORDS[permission], gateway, label))
    if output in (Format.JSON, Format.YAML):
        print_data({"allowed": decision.allowed, "explanation": decision.explanation}, output)
    else:
        line(f"{'yes' if decision else 'no'}: {decision.explanation}")
    if not decision:
        raise Ended(Exit.DIFFERENCE)


def _target(name: str, permission: Permission, gateways: list[str], labels: list[str]) -> Target | None:
    if not name:
        return None
    if "/" not in name and permission is Permission.SWITCH:
        name = f"models/{name}"
    if name.partition("/")[0] not in COLLECTIONS:
        raise typer.BadParameter(f"'{name[:80]}' is not COLLECTION/NAME, like models/iris", param_hint="NAME")
    pairs = [label.partition("=") for label in labels]
    if any(not equals for _, equals, _ in pairs):
        raise typer.BadParameter("must be KEY=VALUE", param_hint="--label")
    collection, _, short = name.partition("/")
    gateways = [short] if collection == "gateways" and not gateways else gateways
    return Target(name, tuple(gateways), {key: value for key, _, value in pairs})
