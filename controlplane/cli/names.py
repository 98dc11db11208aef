"""Names of objects as people type them: `models iris`, `model/iris` and `models/iris` name the same object."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from controlplane.domain.collections import COLLECTIONS
from controlplane.errors import did_you_mean


def object_kinds() -> tuple[str, ...]:
    """Return the kinds of desired state."""
    return tuple(row.name for row in COLLECTIONS)


def kind_of(text: str, kinds: Sequence[str]) -> str:
    """Return the kind that a singular or plural word means: `model` is `models`. Errors: BadParameter."""
    for kind in kinds:
        if text in (kind, kind.removesuffix("s")):
            return kind
    hint = did_you_mean(text, kinds) or f"write one of: {', '.join(kinds)}"
    raise typer.BadParameter(f"'{text[:80]}' is no kind of objects; {hint}")


def parse(arguments: Sequence[str], kinds: Sequence[str]) -> dict[str, list[str]]:
    """Return the names by kind, of `KIND NAME…` or of `KIND/NAME…`. A kind alone has no names. Errors: BadParameter."""
    first = arguments[0]
    if "/" not in first:
        kind = kind_of(first, kinds)
        return {kind: [without_kind(kind, name) for name in arguments[1:]]}
    names: dict[str, list[str]] = {}
    for argument in arguments:
        word, slash, name = argument.partition("/")
        if not slash:
            raise typer.BadParameter(f"'{argument}' has no kind: write {kind_of(first.partition('/')[0], kinds)}/{argument}")
        kind = kind_of(word, kinds)
        if not name:
            raise typer.BadParameter(f"'{argument}' has no name: write {kind}/NAME")
        names.setdefault(kind, []).append(name)
    return names


def without_kind(kind: str, name: str) -> str:
    """Return the name of an object of this kind without the kind: `models/iris` and `model/iris` are `iris`."""
    for prefix in (f"{kind}/", f"{kind.removesuffix('s')}/"):
        name = name.removeprefix(prefix)
    return name
