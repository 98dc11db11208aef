"""Objects as JSON, for the store: the fields of the nouns as they are, so that history can be read without this program.

A field that is missing takes its default: an older version wrote it. A field that is not known is an error: a newer version
wrote it, and guessing what it meant would serve something else than was asked for.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from controlplane.errors import Code, Error
from controlplane.model import Gateway, HeaderRouting, HostRouting, Model, Object, PathRouting, Routing

_FORBID = ConfigDict(extra="forbid")
# pydantic takes a config for a container, and hands it down to the dataclasses inside; hence the tuples of one.
_MODEL = TypeAdapter(tuple[Model], config=_FORBID)
_GATEWAY = TypeAdapter(tuple[Gateway], config=_FORBID)
# A union's members are told apart by name here, not by which fields happen to fit: HostRouting has none.
_ROUTINGS: dict[str, tuple[type[Routing], TypeAdapter[Any]]] = {
    "path": (PathRouting, TypeAdapter(tuple[PathRouting], config=_FORBID)),
    "header": (HeaderRouting, TypeAdapter(tuple[HeaderRouting], config=_FORBID)),
    "host": (HostRouting, TypeAdapter(tuple[HostRouting], config=_FORBID)),
}
_TEXT = TypeAdapter(dict[str, Any])


def encode(obj: Object) -> str:
    """JSON of an object; `decode` gives back an equal one."""
    if isinstance(obj, Model):
        return _MODEL.dump_json((obj,)).decode()[1:-1]
    (data,) = _GATEWAY.dump_python((obj,), mode="json")
    kind = next(k for k, (cls, _) in _ROUTINGS.items() if isinstance(obj.routing, cls))
    data["routing"] = {kind: data["routing"]}
    return _TEXT.dump_json(data).decode()


def decode(name: str, content: str) -> Object:
    """The object that `content` is, by its resource name. Errors: FAILED_PRECONDITION / STORE_NEWER, STORE_CORRUPT."""
    try:
        return _MODEL.validate_json(f"[{content}]")[0] if name.startswith("models/") else _gateway(name, content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(p) for p in first["loc"])
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden", "enum"):
            raise _newer(name, path) from None
        raise _corrupt(name, f"{path}: {first['msg']}") from None
    except Error as error:
        if error.reason == "STORE_NEWER":
            raise
        raise _corrupt(name, error.message) from None


def _gateway(name: str, content: str) -> Gateway:
    data = _TEXT.validate_json(content)
    kind, body = next(iter(data.get("routing", {"path": {}}).items()))
    if kind not in _ROUTINGS:
        raise _newer(name, f"routing.{kind}")
    (data["routing"],) = _ROUTINGS[kind][1].validate_python((body,))
    gateway: Gateway = _GATEWAY.validate_python((data,))[0]
    return gateway


def _newer(name: str, path: str) -> Error:
    return Error(
        Code.FAILED_PRECONDITION,
        "STORE_NEWER",
        f"{name} in the store was written by a newer version: this one does not know '{path}'; run the newer one",
    )


def _corrupt(name: str, why: str) -> Error:
    return Error(
        Code.FAILED_PRECONDITION,
        "STORE_CORRUPT",
        f"{name} in the store is not valid ({why}): the file was changed from outside; restore it from a backup",
    )
