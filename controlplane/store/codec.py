"""Objects as JSON. The JSON has the fields of the nouns, so that people can read the history without this program.

The form of each noun follows from its row in `domain.collections`:

| row | form |
|---|---|
| without options | the fields of the object |
| `unions={"routing": …}` | `"routing": {"path": {…}}`: the value under the name of its class, which its fields don't show |
| `sensitive=True` | `"name"` and `"tls_certificate": {…}`: the kind of secret and its fields, private key or value sealed |

A missing field gets its default, because an older version of this program wrote the object. An unknown field is an error,
because a newer version wrote the object. If this version ignored the field, it would serve something else than was configured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from controlplane.domain import (
    CaCertificates,
    Endpoint,
    Gateway,
    Mirror,
    Model,
    Object,
    OpaqueValue,
    Retries,
    Secret,
    TlsCertificate,
    Version,
)
from controlplane.domain.collections import BY_NAME, COLLECTIONS, Collection
from controlplane.errors import Code, Error
from controlplane.store.sealing import Purged, Sealer

# The fields of a secret's JSON that hold what the sealer returned for its private key, or for its value.
SEALED = "sealed_private_key"
SEALED_VALUE = "sealed_value"

_FORBID_UNKNOWN_FIELDS = ConfigDict(extra="forbid")
_JSON_OBJECT = TypeAdapter(dict[str, Any])
_SECRET_FIELDS = {
    "tls_certificate": {"certificate_chain_pem", SEALED},
    "ca_certificates": {"ca_certificates_pem"},
    "opaque": {SEALED_VALUE},
}
# Fields that were added after the first form, of nouns and of values in them. They are left out at their default, so that an
# earlier version can read objects that do not use them.
_LATER_FIELDS: Mapping[type, tuple[str, ...]] = {
    Gateway: (
        "absent_after",
        "ephemeral",
        "expected_nodes",
        "scope_id",
        "cors",
        "access_log",
        "answered_by_header",
        "health_path",
        "hide_models",
        "rate_limiting",
        "error_format",
        "patches",
        "patch_secrets",
        "labels",
    ),
    Mirror: ("max_request_bytes", "max_requests", "timeout"),
    Retries: ("request_body_buffer_limit",),
    Model: ("affinity", "rate_limits", "patches", "labels"),
    Version: ("fallback", "host", "rewrite", "request_headers", "credential", "upstream_model", "patches"),
    Endpoint: ("region", "zone", "grpc_port"),
}
# Reasons of errors whose text names the object already.
_REASONS_WITH_NAME = ("STORE_NEWER", "STORE_CORRUPT", "SECRET_KEY_WRONG")


def encode(obj: Object, keys: Sealer) -> str:
    """Return the JSON of an object. `decode` returns an equal object for it."""
    if isinstance(obj, Secret):
        return _JSON_OBJECT.dump_json({"name": obj.name, **_secret_content(obj, keys)}).decode()
    return _CODECS[obj.collection].encode(obj)


def decode(name: str, content: str, keys: Sealer) -> Object:
    """Return the object with a resource name from its JSON.

    Errors: FAILED_PRECONDITION / STORE_NEWER, STORE_CORRUPT; SECRET_KEY_WRONG.
    """
    row = BY_NAME.get(name.partition("/")[0])
    if row is None:
        raise _newer(name, name)
    try:
        return _secret(name, content, keys) if row.sensitive else _CODECS[row.name].decode(name, content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(p) for p in first["loc"])
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden", "enum"):
            raise _newer(name, path) from None
        raise _corrupt(name, f"{path}: {first['msg']}") from None
    except Error as error:
        if error.reason in _REASONS_WITH_NAME:
            raise
        raise _corrupt(name, error.message) from None


def codec_digest() -> bytes:
    """Return a digest of the form of all objects that this version reads: their fields, types and limits."""
    forms: list[Any] = [{kind: sorted(fields) for kind, fields in _SECRET_FIELDS.items()}]
    for name, codec in _CODECS.items():
        members = [(field, kind, adapter) for field, kinds in codec.unions.items() for kind, (_, adapter) in kinds.items()]
        forms.append([name, codec.adapter.json_schema(), *((field, kind, a.json_schema()) for field, kind, a in members)])
    return hashlib.blake2b(json.dumps(forms, sort_keys=True).encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class _NounCodec:
    """The codec of one collection that is not sensitive."""

    adapter: TypeAdapter[Any]
    # By field that is a union, then by the name of the class in JSON: the class and its adapter.
    unions: Mapping[str, Mapping[str, tuple[type, TypeAdapter[Any]]]]

    def encode(self, obj: Object) -> str:
        """Return the JSON of an object."""
        (data,) = self.adapter.dump_python((obj,), mode="json")
        _omit_defaults(obj, data)
        for field, members in self.unions.items():
            kind = next(k for k, (cls, _) in members.items() if isinstance(getattr(obj, field), cls))
            data[field] = {kind: data[field]}
        return _JSON_OBJECT.dump_json(data).decode()

    def decode(self, name: str, content: str) -> Object:
        """Return the object. Errors: ValidationError; STORE_NEWER for an unknown member of a union."""
        obj: Object
        if not self.unions:
            (obj,) = self.adapter.validate_json(f"[{content}]")
            return obj
        data = _JSON_OBJECT.validate_json(content)
        for field, members in self.unions.items():
            if field in data:
                if not isinstance(data[field], dict) or len(data[field]) != 1:
                    raise _corrupt(name, f"{field}: must have exactly one member")
                ((kind, body),) = data[field].items()
                if kind not in members:
                    raise _newer(name, f"{field}.{kind}")
                (data[field],) = members[kind][1].validate_python((body,))
        (obj,) = self.adapter.validate_python((data,))
        return obj


def _noun_codec(row: Collection) -> _NounCodec:
    """Return the codec of a row of the table."""
    unions = {field: {kind: (cls, _adapter(cls)) for kind, cls in members.items()} for field, members in row.unions.items()}
    return _NounCodec(_adapter(row.noun), unions)


def _omit_defaults(value: Any, data: dict[str, Any]) -> None:
    """Remove the later fields that are at their default from the JSON of a value, and of the values in it."""
    later = _LATER_FIELDS.get(type(value), ())
    for field in fields(value):
        item = getattr(value, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if field.name in later and item == default:
            del data[field.name]
        elif is_dataclass(item):
            _omit_defaults(item, data[field.name])
        elif isinstance(item, tuple) and item and is_dataclass(item[0]):
            for inner, inner_data in zip(item, data[field.name], strict=True):
                _omit_defaults(inner, inner_data)


def _adapter(cls: type) -> TypeAdapter[Any]:
    # Pydantic takes a configuration only for a container, and applies it to the dataclass inside. So the type is a tuple.
    return TypeAdapter(tuple[cls], config=_FORBID_UNKNOWN_FIELDS)  # type: ignore[valid-type]


# By collection. Secrets are not among them, because `_secret_content` and `_secret` convert them.
_CODECS: Mapping[str, _NounCodec] = {row.name: _noun_codec(row) for row in COLLECTIONS if not row.sensitive}


def _secret_content(secret: Secret, keys: Sealer) -> dict[str, dict[str, str]]:
    match secret.content:
        case TlsCertificate(certificate_chain_pem=chain, private_key_pem=key):
            sealed = keys.seal(key, secret.resource_name)
            return {secret.kind: {"certificate_chain_pem": chain, SEALED: sealed}}
        case CaCertificates(pem):
            return {secret.kind: {"ca_certificates_pem": pem}}
        case OpaqueValue(value=value):
            return {secret.kind: {SEALED_VALUE: keys.seal(value, secret.resource_name)}}


def _secret(name: str, content: str, keys: Sealer) -> Secret:
    data = _JSON_OBJECT.validate_json(content)
    label = data.pop("name", "")
    kind, body = next(iter(data.items()), ("", None))
    if kind not in _SECRET_FIELDS or len(data) > 1:
        raise _newer(name, ", ".join(data))
    if not isinstance(body, dict) or not all(isinstance(v, str) for v in (label, *body.values())):
        raise _corrupt(name, f"{kind}: every value must be text")
    unknown = body.keys() - _SECRET_FIELDS[kind]
    if unknown:
        raise _newer(name, f"{kind}.{min(unknown)}")
    if kind == "ca_certificates":
        return Secret(label, CaCertificates(body.get("ca_certificates_pem", "")))
    field = SEALED_VALUE if kind == "opaque" else SEALED
    chain = body.get("certificate_chain_pem", "")
    try:
        opened = keys.open(body.get(field, ""), name)
    except Purged as purged:
        key_id = str(purged)
        return Secret(label, OpaqueValue("", key_id) if kind == "opaque" else TlsCertificate(chain, "", key_id))
    except ValueError as error:
        raise _corrupt(name, f"{field}: {error}") from None
    return Secret(label, OpaqueValue(opened) if kind == "opaque" else TlsCertificate(chain, opened))


def _newer(name: str, path: str) -> Error:
    return Error(
        Code.FAILED_PRECONDITION,
        "STORE_NEWER",
        f"{name} in the store was written by a newer version: this one does not know '{path}'. Run the newer version",
    )


def _corrupt(name: str, problem: str) -> Error:
    return Error(
        Code.FAILED_PRECONDITION,
        "STORE_CORRUPT",
        f"{name} in the store is not valid ({problem}): another program changed the store. Restore it from a backup",
    )
