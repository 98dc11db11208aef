"""What all conversions share: names, times, defaults, and gathering what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.domain import Object
from controlplane.errors import Collector, invalid

T = TypeVar("T")

_NANO = 10**9


def label(name: str, noun: type[Object], field: str) -> str:
    """Return `iris` of `iris` or `models/iris`. Errors: INVALID_ARGUMENT for no name, or that of another collection."""
    collection = noun.collection
    if not name:
        raise invalid(field, f"is required: {collection}/NAME")
    given, slash, last = name.rpartition("/")
    if slash and given != collection:
        raise invalid(field, f"'{name[:80]}' is not the name of one of the {collection}: {collection}/NAME")
    return last


def timestamp(seconds: float) -> Timestamp:
    """A time in seconds since the epoch, to the microsecond."""
    micros = round(seconds * 1_000_000)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def duration(seconds: float) -> Duration:
    """Seconds as a Duration, to the nanosecond."""
    nanos = round(seconds * _NANO)
    return Duration(seconds=nanos // _NANO, nanos=nanos % _NANO)


def seconds(value: Duration) -> float:
    """A Duration in seconds: the float that is nearest to it."""
    return (value.seconds * _NANO + value.nanos) / _NANO


def said(proto: Message, field: str, default: object) -> int:
    """A number that was sent, also when it is 0; otherwise that of `default`."""
    return int(getattr(proto if proto.HasField(field) else default, field))


def tried(c: Collector, prefix: str, make: Callable[[], T], skip: str | None = None) -> T | None:
    """What `make` makes; None when it can't, and why is with the collector. Nothing is said of the field `skip`."""
    with c.within(prefix):
        return make()
    if skip is not None and c.errors:
        last = c.errors.pop()
        kept = tuple(v for v in last.violations if v.field != skip and not v.field.startswith(f"{skip}."))
        if kept:
            c.errors.append(
                type(last)(last.code, last.reason, "; ".join(f"{v.field}: {v.description}" for v in kept), violations=kept)
            )
    return None
