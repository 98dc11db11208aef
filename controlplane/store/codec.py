"""Objects as JSON, for the store: the fields of the nouns as they are, so that history can be read without this program.

A field that is missing takes its default: an older version wrote it. A field that is not known is an error: a newer version
wrote it, and guessing what it meant would serve something else than was asked for. Of a secret everything can be read but the
private key, which is sealed.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from controlplane.domain import (
    CaCertificates,
    Gateway,
    HeaderRouting,
    HostRouting,
    Model,
    Object,
    PathRouting,
    Routing,
    Secret,
    TlsCertificate,
)
from controlplane.errors import Code, Error
from controlplane.store.sealing import Keys

# The field of a secret's JSON that holds its private key.
SEALED = "sealed_private_key"

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
_FIELDS = {"tls_certificate": {"certificate_chain_pem", SEALED}, "ca_certificates": {"ca_certificates_pem"}}


def encode(obj: Object, keys: Keys) -> str:
    """JSON of an object; `decode` gives back an equal one."""
    if isinstance(obj, Model):
        return _MODEL.dump_json((obj,)).decode()[1:-1]
    if isinstance(obj, Secret):
        return _TEXT.dump_json({"name": obj.name, **_content(obj, keys)}).decode()
    (data,) = _GATEWAY.dump_python((obj,), mode="json")
    kind = next(k for k, (cls, _) in _ROUTINGS.items() if isinstance(obj.routing, cls))
    data["routing"] = {kind: data["routing"]}
    return _TEXT.dump_json(data).decode()


def decode(name: str, content: str, keys: Keys) -> Object:
    """The object that `content` is, by its resource name.

    Errors: FAILED_PRECONDITION / STORE_NEWER, STORE_CORRUPT; SECRET_KEY_WRONG.
    """
    try:
        if name.startswith("models/"):
            return _MODEL.validate_json(f"[{content}]")[0]
        return _secret(name, content, keys) if name.startswith("secrets/") else _gateway(name, content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(p) for p in first["loc"])
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden", "enum"):
            raise _newer(name, path) from None
        raise _corrupt(name, f"{path}: {first['msg']}") from None
    except Error as error:
        if error.reason in ("STORE_NEWER", "STORE_CORRUPT", "SECRET_KEY_WRONG"):
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


def _content(secret: Secret, keys: Keys) -> dict[str, dict[str, str]]:
    match secret.content:
        case TlsCertificate(chain, key):
            sealed = keys.seal(key, secret.resource_name)
            return {"tls_certificate": {"certificate_chain_pem": chain, SEALED: sealed}}
        case CaCertificates(pem):
            return {"ca_certificates": {"ca_certificates_pem": pem}}


def _secret(name: str, content: str, keys: Keys) -> Secret:
    data = _TEXT.validate_json(content)
    label = data.pop("name", "")
    kind, body = next(iter(data.items()), ("", None))
    if kind not in _FIELDS or len(data) > 1:
        raise _newer(name, ", ".join(data))
    if not isinstance(body, dict) or not all(isinstance(v, str) for v in (label, *body.values())):
        raise _corrupt(name, f"{kind}: must hold texts")
    unknown = body.keys() - _FIELDS[kind]
    if unknown:
        raise _newer(name, f"{kind}.{min(unknown)}")
    if kind == "ca_certificates":
        return Secret(label, CaCertificates(body.get("ca_certificates_pem", "")))
    try:
        key = keys.open(body.get(SEALED, ""), name)
    except ValueError as error:
        raise _corrupt(name, f"{SEALED}: {error}") from None
    return Secret(label, TlsCertificate(body.get("certificate_chain_pem", ""), key))


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
