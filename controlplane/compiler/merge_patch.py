"""JSON Merge Patch (RFC 7396) of Envoy's messages, and the types that a patch may name.

The message becomes JSON, the patch is merged, and the result becomes a message again. Its bytes are the same in every process.
Field names may be written in snake_case or in lowerCamelCase. An object with another `@type` replaces the one that it would be
merged into.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pool, json_format
from google.protobuf.message import DecodeError

from controlplane.compiler.decode import unpack
from controlplane.compiler.message import packed

_ANY = "google.protobuf.Any"
_TYPE = "@type"
_MAX_DEPTH = 64
# The packages whose types a patch may name. Other types of Envoy are in no package that is installed here.
_PACKAGES = ("envoy.", "xds.", "google.protobuf.")
# These would hide the configuration of a filter from every check.
_UNCHECKED = ("xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct")


class MergeError(ValueError):
    """A patch does not fit its message. The text says where and why."""


def merged(message: Any, patch: Mapping[str, Any]) -> Any:
    """Return a message with a patch merged into it. Errors: MergeError."""
    _check_depth(patch)
    for name in _types(patch):
        _load(name)
    form = json_format.MessageToDict(message, preserving_proto_field_name=True)
    result = type(message)()
    try:
        json_format.ParseDict(_merge(form, patch, message.DESCRIPTOR), result)
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise MergeError(" ".join(str(error).split())[:500]) from None
    repack(result)
    return result


def _merge(form: Any, patch: Any, descriptor: Any) -> Any:
    """Return the merge of two JSON values, of which the second is a patch. `descriptor` is that of a message."""
    if not isinstance(patch, Mapping):
        return patch
    target = dict(form) if isinstance(form, Mapping) else {}
    if descriptor is not None and descriptor.full_name == _ANY:
        url = patch.get(_TYPE, target.get(_TYPE))
        if url != target.get(_TYPE):
            target = {}
        descriptor = _descriptor(url)
    fields = _fields(descriptor)
    for key, value in patch.items():
        field = fields.get(key)
        name = field.name if field is not None else key
        if value is None:
            target.pop(name, None)
        elif field is None:
            target[name] = _merge(target.get(name), value, None)
        elif field.message_type is None:
            target[name] = value
        elif field.message_type.GetOptions().map_entry:
            target[name] = _merge_map(target.get(name), value, field.message_type.fields_by_name["value"].message_type)
        elif field.is_repeated:
            # The list replaces a list. Each item is merged into an empty one, so that its field names are in one spelling.
            target[name] = [_merge({}, item, field.message_type) for item in value] if isinstance(value, list) else value
        else:
            target[name] = _merge(target.get(name, {}), value, field.message_type)
    return target


def _merge_map(form: Any, patch: Any, value_type: Any) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    target = dict(form) if isinstance(form, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = _merge(target.get(key), value, value_type)
    return target


def _fields(descriptor: Any) -> Mapping[str, Any]:
    """Return the fields of a message, each under both of its names; empty for a type with a JSON form of its own."""
    if descriptor is None or descriptor.full_name.startswith("google.protobuf."):
        return {}
    return {name: field for field in descriptor.fields for name in (field.name, field.json_name)}


def _descriptor(url: Any) -> Any:
    name = str(url).rpartition("/")[2]
    try:
        return descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        raise MergeError(f"the type '{name[:200]}' is not known: `@type` must be that of a message of Envoy") from None


def _types(form: Any) -> Iterator[str]:
    """Yield the full names of the types that a JSON value names."""
    if isinstance(form, Mapping):
        if isinstance(url := form.get(_TYPE), str):
            yield url.rpartition("/")[2]
        for value in form.values():
            yield from _types(value)
    elif isinstance(form, list):
        for item in form:
            yield from _types(item)


def _is_known(name: str) -> bool:
    try:
        descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        return False
    return True


def _load(name: str) -> None:
    """Import the messages of a type's package. Errors: MergeError for a type that no patch may name."""
    if name in _UNCHECKED:
        raise MergeError(f"'{name}' can't be checked: use the type of the configuration itself")
    if not name.startswith(_PACKAGES) or not name.isascii() or not all(part.isidentifier() for part in name.split(".")):
        raise MergeError(f"the type '{name[:200]}' is not known: `@type` must be that of a message of Envoy")
    package = name
    while "." in package:
        package = package.rpartition(".")[0]
        if not package.rpartition(".")[2][0].isupper():  # else a message around this one
            break
    try:
        folder = files(package)
    except (ImportError, TypeError):
        raise MergeError(f"the type '{name[:200]}' is not known: there is no package '{package[:200]}'") from None
    for module in sorted(entry.name for entry in folder.iterdir()):
        if module.endswith("_pb2.py"):
            importlib.import_module(f"{package}.{module.removesuffix('.py')}")


def _check_depth(form: Any, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise MergeError(f"is nested deeper than {_MAX_DEPTH} levels")
    for value in form.values() if isinstance(form, Mapping) else form if isinstance(form, list) else ():
        _check_depth(value, depth + 1)


def repack(message: Any) -> None:
    """Serialise each message in an Any again, with its maps in order. Errors: MergeError for a type that no patch may name."""
    if message.DESCRIPTOR.full_name == _ANY:
        name = message.type_url.rpartition("/")[2]
        if name in _UNCHECKED or not _is_known(name):
            _load(name)
        try:
            inner = unpack(message)
        except (KeyError, DecodeError):
            raise MergeError(f"the type '{name[:200]}' is not known, or its message is damaged") from None
        repack(inner)
        message.value = packed(inner).value
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for item in value.values():
                    repack(item)
        elif field.is_repeated:
            for item in value:
                repack(item)
        else:
            repack(value)
