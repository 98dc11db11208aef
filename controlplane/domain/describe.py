"""Descriptions of a change to an object, as lines for people: `split: blue 10000 -> green 10000`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any

from controlplane.domain import (
    BodyRouting,
    Endpoint,
    HeaderRouting,
    HostRouting,
    Model,
    Object,
    PathRouting,
    RateLimit,
    Secret,
)
from controlplane.domain.describe_patch import is_of_removed, patch_fields
from controlplane.domain.describe_secret import secret_lines

# Number of lines about the endpoints of one version. Further endpoints are only counted.
MAX_ENDPOINT_LINES = 20

_NONE = "none"


def lines(old: Object | None, new: Object | None) -> list[str]:
    """Return one line for each field that differs. For a new object: one line for each field that is not at its default.

    For a deleted object, return no lines.
    """
    if new is None:
        return []
    if isinstance(new, Secret):
        return secret_lines(old if isinstance(old, Secret) else None, new)
    after = {path: (text, default) for path, text, default in _flat("", new, old)}
    before = {path: (text, default) for path, text, default in _flat("", old, new)} if old is not None else {}
    changed = []
    for path in [*after, *(p for p in before if p not in after)]:
        was, was_default = before.get(path, (_NONE, True))
        now, is_default = after.get(path, (_NONE, True))
        is_removed_version = path.startswith("versions.") and not any(
            path.startswith(f"versions.{n}.") for n in _versions(new)
        )
        if was == now or is_of_removed(path, before, after) or is_removed_version or (was_default and is_default):
            continue
        changed.append(f"{path}: {now}" if old is None else f"{path}: {was} -> {now}")
    return changed + list(_endpoint_lines(_versions(old), _versions(new)))


def _flat(path: str, value: Any, other: Any) -> Iterator[tuple[str, str, bool]]:
    """Yield (path, text, True if it is the default) of each field that differs from `other`, in order.

    If `other` is None, yield the fields that are not at their default. Names, endpoints and scopes are left out.
    """
    for field in fields(value):
        item = getattr(value, field.name)
        counterpart = getattr(other, field.name, None)
        default = _is_default(field, item)
        if field.name in ("name", "endpoints", "scope_id") or (default if other is None else item == counterpart):
            continue
        field_path = f"{path}{field.name}"
        if field.name == "versions":
            yield field_path, ", ".join(v.name for v in item), False
            others = {v.name: v for v in counterpart or ()}
            for version in item:
                yield from _flat(f"{field_path}.{version.name}.", version, others.get(version.name))
        elif field.name == "patches":
            yield from patch_fields(field_path, item)
        elif field.name == "rate_limits":
            yield field_path, ", ".join(map(_rate_limit, item)) or _NONE, default
        elif isinstance(item, PathRouting | HeaderRouting | HostRouting | BodyRouting):
            yield field_path, _routing(item), default
        elif is_dataclass(item):
            if field.default is None:
                yield field_path, "set", False
            yield from _flat(f"{field_path}.", item, counterpart)
        else:
            yield field_path, _text(field.name, item), default


def _is_default(field: Field[Any], item: object) -> bool:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return bool(item == default)


def _text(name: str, item: object) -> str:
    match item:
        case bool():
            return "yes" if item else "no"
        case float():
            return f"{item:g} s"  # every float field of the nouns is a duration
        case Enum():
            return str(item.value)
        case tuple():
            return ", ".join(map(_word, item)) or _NONE
        case Mapping():
            return ", ".join(f"{_word(k)} {_word(v)}" for k, v in item.items()) or _NONE
        case str() if name.endswith("_pem") and item:
            return f"PEM with sha256 {hashlib.sha256(item.encode()).hexdigest()[:16]}"
        case None | "":
            return _NONE
        case _:
            return str(item)


def _rate_limit(limit: RateLimit) -> str:
    by = ""
    if limit.header or limit.cookie:
        by = f" by header {limit.header}" if limit.header else f" by cookie {limit.cookie}"
    elif limit.client_address:
        by = " by client address"
    return f"{limit.requests} in {limit.per:g} s{by}"


def _word(item: object) -> str:
    """Return the text of an item, in quotes if it is empty or contains a space, a comma or a quote."""
    text = str(item)
    return text if re.fullmatch(r"[^\s,'\"]+", text) else repr(text)


def _routing(routing: PathRouting | HeaderRouting | HostRouting | BodyRouting) -> str:
    match routing:
        case PathRouting(segment, verbs):
            return f"path segment {segment}, verbs {', '.join(verbs) or _NONE}"
        case HeaderRouting(name):
            return f"header {name}"
        case HostRouting():
            return "host"
        case BodyRouting(max_body_bytes, default_model):
            return f"body up to {max_body_bytes:,} bytes, default model {default_model or _NONE}"


def _versions(obj: Object | None) -> dict[str, dict[str, Endpoint]]:
    """Return the endpoints of a model's versions: by version, then by `host:port`. Other objects have none."""
    if not isinstance(obj, Model):
        return {}
    return {v.name: {e.host_port: e for e in v.endpoints} for v in obj.versions}


# The words for the fields of an endpoint beside its address.
_ENDPOINT_FIELDS: Mapping[str, str] = {"weight": "weight", "region": "region", "zone": "zone", "grpc_port": "gRPC port"}


def _endpoint_lines(old: Mapping[str, Mapping[str, Endpoint]], new: Mapping[str, Mapping[str, Endpoint]]) -> Iterator[str]:
    for name, after in new.items():
        before = old.get(name, {})
        changed = [f"- {a}" for a in before if a not in after]
        changed += [
            f"+ {a}" + (f" weight {e.weight}" if e.weight != 1 else "") + (f" gRPC port {e.grpc_port}" if e.grpc_port else "")
            for a, e in after.items()
            if a not in before
        ]
        changed += [
            f"{address} {words} {getattr(before[address], field) or _NONE} -> {getattr(e, field) or _NONE}"
            for address, e in after.items()
            if address in before
            for field, words in _ENDPOINT_FIELDS.items()
            if getattr(before[address], field) != getattr(e, field)
        ]
        if not changed and list(before) != list(after):
            changed = ["in another order"]
        more = len(changed) - MAX_ENDPOINT_LINES
        for line in changed[:MAX_ENDPOINT_LINES]:
            yield f"versions.{name}.endpoints: {line}"
        if more > 0:
            yield f"versions.{name}.endpoints: and {more} more"
