"""Update masks: the fields of an object that an update changes."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from controlplane.errors import invalid

M = TypeVar("M", bound=Message)

# Fields that identify the object or that the server sets.
_NOT_SETTABLE = frozenset({"name", "etag", "create_time", "update_time"})


def updated(live: M, sent: M, mask: FieldMask) -> M:
    """Return the object after an update, following AIP-134.

    | mask          | result                                                                              |
    |---------------|-------------------------------------------------------------------------------------|
    | names fields  | `live` with these fields of `sent`; a field that `sent` does not populate is cleared |
    | empty         | `live` with every field that `sent` populates                                       |
    | `*`           | `sent`: a field that it does not populate gets its default                          |

    Errors: INVALID_ARGUMENT for a path that is not the name of a field that can be set.
    """
    if mask.paths == ["*"]:
        return sent
    paths = updated_fields(sent, mask)
    result = type(live)()
    result.CopyFrom(live)
    picked = type(live)()
    picked.CopyFrom(sent)
    for name in {f.name for f in sent.DESCRIPTOR.fields} - set(paths):
        picked.ClearField(name)
    for path in paths:
        result.ClearField(path)
    result.MergeFrom(picked)
    return result


def updated_fields(sent: Message, mask: FieldMask) -> list[str]:
    """Return the names of the fields that an update takes from `sent`. Errors: as `updated`."""
    settable = [f.name for f in sent.DESCRIPTOR.fields if f.name not in _NOT_SETTABLE]
    if mask.paths == ["*"]:
        return settable
    if not mask.paths:
        return [f.name for f, _ in sent.ListFields() if f.name in settable]
    for i, path in enumerate(mask.paths):
        if path not in settable:
            message = f"'{path[:80]}' is not a field that can be updated; these can be: {', '.join(settable)}"
            raise invalid(f"update_mask.paths[{i}]", message, "UNKNOWN_FIELD")
    return list(mask.paths)
