"""Names, metadata, times, defaults and the collection of errors, for all conversions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.domain import Object
from controlplane.domain.revision import ObjectMeta
from controlplane.errors import Collector, invalid

T = TypeVar("T")

_NANO = 10**9


def label(name: str, noun: type[Object], field: str) -> str:
    """Return `iris` for `iris` or `models/iris`. Errors: INVALID_ARGUMENT for an empty name, or one of another collection."""
    collection = noun.collection
    if not name:
        raise invalid(field, f"is required: {collection}/NAME")
    prefix, slash, last = name.rpartition("/")
    if slash and prefix != collection:
        raise invalid(field, f"'{name[:80]}' is not the name of one of the {collection}: {collection}/NAME")
    return last


def set_meta(proto: Any, meta: ObjectMeta | None) -> None:
    """Set the etag and the times in the message of an object; do nothing without metadata."""
    if meta is not None:
        proto.etag = meta.etag
        proto.create_time.CopyFrom(timestamp(meta.create_time))
        proto.update_time.CopyFrom(timestamp(meta.update_time))


def timestamp(seconds: float) -> Timestamp:
    """Return the Timestamp of a time in seconds since the epoch, rounded to microseconds."""
    micros = round(seconds * 1_000_000)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def duration(seconds: float) -> Duration:
    """Return the Duration of a number of seconds, rounded to nanoseconds."""
    nanos = round(seconds * _NANO)
    return Duration(seconds=nanos // _NANO, nanos=nanos % _NANO)


def seconds(value: Duration) -> float:
    """Return a Duration in seconds, as the nearest float."""
    return (value.seconds * _NANO + value.nanos) / _NANO


def number(proto: Message, field: str, default: object) -> int:
    """Return a number in a message if it is set, also if it is 0; otherwise the field of the same name in `default`."""
    return int(getattr(proto if proto.HasField(field) else default, field))


def collected(c: Collector, prefix: str, make: Callable[[], T], skip: str | None = None) -> T | None:
    """Return the result of `make`; None if it raises an error, which the collector keeps with paths below `prefix`.

    Violations of the field `skip` are dropped, because they were reported before.
    """
    with c.within(prefix):
        return make()
    if skip is not None and c.errors:
        last = c.errors.pop()
        others = tuple(v for v in last.violations if v.field != skip and not v.field.startswith(f"{skip}."))
        if others:
            c.errors.append(
                type(last)(last.code, last.reason, "; ".join(f"{v.field}: {v.description}" for v in others), violations=others)
            )
    return None
