"""Conversion of patches to messages and back."""

from __future__ import annotations

import json
from collections.abc import Iterable

from google.protobuf.json_format import MessageToDict, ParseDict

from controlplane.api.convert.names import collected
from controlplane.domain import Patch, PatchTarget
from controlplane.errors import Collector, invalid
from controlplane.generated.turnout.v1 import patch_pb2

_TARGETS = ", ".join(f"`{target.value}`" for target in PatchTarget)


def patch_to_proto(patch: Patch) -> patch_pb2.Patch:
    """Return the message of a patch."""
    proto = patch_pb2.Patch(name=patch.name)
    change = getattr(proto, patch.target.value)
    if patch.target is PatchTarget.FUNCTION:
        change.name, change.hash = patch.function, patch.hash
        if patch.form:
            ParseDict(patch.form, change.settings)
        return proto
    if patch.target is not PatchTarget.HTTP_FILTER:
        ParseDict(patch.form, change)
        return proto
    ParseDict(patch.form, change.filter)
    if patch.before:
        change.before = patch.before
    elif patch.after:
        change.after = patch.after
    return proto


def patches_from_proto(protos: Iterable[patch_pb2.Patch], c: Collector) -> tuple[Patch, ...]:
    """Return the patches of messages. Errors go to the collector, by the field's path; those patches are left out."""
    patches = [collected(c, f"patches[{i}]", lambda p=proto: _patch(p)) for i, proto in enumerate(protos)]  # type: ignore[misc]
    return tuple(patch for patch in patches if patch is not None)


def _patch(proto: patch_pb2.Patch) -> Patch:
    change = proto.WhichOneof("change")
    if change is None:
        raise invalid("", f"changes nothing: set one of {_TARGETS}")
    message = getattr(proto, change)
    if change == PatchTarget.FUNCTION.value:
        settings = json.dumps(MessageToDict(message.settings))
        return Patch(proto.name, PatchTarget.FUNCTION, settings, function=message.name, hash=message.hash)
    if change != PatchTarget.HTTP_FILTER.value:
        return Patch(proto.name, PatchTarget(change), json.dumps(MessageToDict(message)))
    if (place := message.WhichOneof("place")) is not None and not getattr(message, place):
        raise invalid(f"{change}.{place}", "must not be empty")
    content = json.dumps(MessageToDict(message.filter))
    return Patch(proto.name, PatchTarget(change), content, message.before, message.after)
