"""Conversion of models to messages and back."""

from __future__ import annotations

from functools import partial

from controlplane.api.convert.converter import Converter
from controlplane.api.convert.names import collected, duration, label, number, seconds, set_meta
from controlplane.api.convert.patch import patch_to_proto, patches_from_proto
from controlplane.api.convert.rate_limit import rate_limit_from_proto, rate_limit_to_proto
from controlplane.api.convert.rewrite import rewrite_from_proto, rewrite_to_proto
from controlplane.api.convert.version import version_from_proto, version_to_proto
from controlplane.domain import (
    FULL_SHARE,
    Affinity,
    Endpoint,
    Gateway,
    Mirror,
    Model,
    Retries,
    Sticky,
    Timeouts,
    Version,
)
from controlplane.domain.checks import percent_of_traffic
from controlplane.domain.collections import resource_name
from controlplane.domain.revision import ObjectMeta
from controlplane.errors import Collector, Error, failed_precondition
from controlplane.generated.turnout.v1 import model_pb2


def model_to_proto(model: Model, meta: ObjectMeta | None = None) -> model_pb2.Model:
    """Return the message of a model. `meta` is None if the model is not stored."""
    proto = model_pb2.Model(
        name=model.resource_name,
        gateways=[resource_name(Gateway, g) for g in model.gateways],
        keys=model.keys,
        versions=[version_to_proto(v) for v in model.versions],
        split=model.split,
        preview_header=model.preview_header,
    )
    if model.sticky is not None:
        if model.sticky.header:
            proto.sticky.header = model.sticky.header
        else:
            proto.sticky.cookie = model.sticky.cookie
    if model.mirror is not None:
        proto.mirror.CopyFrom(_mirror_to_proto(model.mirror))
    if model.timeouts != Timeouts():
        proto.timeouts.request.CopyFrom(duration(model.timeouts.request))
        proto.timeouts.idle.CopyFrom(duration(model.timeouts.idle))
    if model.retries != Retries():
        proto.retries.attempts = model.retries.attempts
        proto.retries.unsafe = model.retries.unsafe
        proto.retries.request_body_buffer_limit = model.retries.request_body_buffer_limit
        if model.retries.per_try_timeout:
            proto.retries.per_try_timeout.CopyFrom(duration(model.retries.per_try_timeout))
    if model.rewrite is not None:
        proto.rewrite.CopyFrom(rewrite_to_proto(model.rewrite))
    if model.affinity is not None:
        if model.affinity.header:
            proto.affinity.header = model.affinity.header
        else:
            proto.affinity.cookie = model.affinity.cookie
    proto.patches.extend(map(patch_to_proto, model.patches))
    proto.labels.update(model.labels)
    proto.rate_limits.extend(rate_limit_to_proto(limit) for limit in model.rate_limits)
    set_meta(proto, meta)
    return proto


def model_from_proto(proto: model_pb2.Model, live: Model | None = None) -> Model:
    """Return the model of a message. An unset split is that of `live`.

    Errors: INVALID_ARGUMENT with every wrong field, by its path in the model; FAILED_PRECONDITION / VERSION_HAS_SHARE or
    NO_ENDPOINTS if the live split does not fit the versions.
    """
    c = Collector()
    name = collected(c, "", lambda: label(proto.name, Model, "name"))
    gateways = [
        collected(c, "", partial(label, g, Gateway, f"gateways[{i}]")) or f"placeholder-{i}"
        for i, g in enumerate(proto.gateways)
    ]
    versions = [
        collected(c, f"versions[{i}]", partial(version_from_proto, v)) or _placeholder(i, v)
        for i, v in enumerate(proto.versions)
    ]
    sticky = collected(c, "sticky", lambda: _sticky(proto.sticky)) if proto.HasField("sticky") else None
    timeouts = collected(c, "timeouts", lambda: _timeouts(proto.timeouts))
    retries = collected(c, "retries", lambda: _retries(proto.retries))
    rewrite = None
    if proto.HasField("rewrite"):
        rewrite = collected(c, "rewrite", lambda: rewrite_from_proto(proto.rewrite))
    mirror = None
    if proto.HasField("mirror"):
        mirror = collected(c, "mirror", lambda: _mirror(proto.mirror))
    affinity = None
    if proto.HasField("affinity"):
        affinity = collected(c, "affinity", lambda: Affinity(header=proto.affinity.header, cookie=proto.affinity.cookie))
    limits = [collected(c, f"rate_limits[{i}]", partial(rate_limit_from_proto, r)) for i, r in enumerate(proto.rate_limits)]
    patches = patches_from_proto(proto.patches, c)
    split = collected(c, "", lambda: _split(proto, versions, live))
    model = collected(
        c,
        "",
        lambda: Model(
            name=name or "placeholder",
            gateways=tuple(gateways),
            versions=tuple(versions),
            split=split or {},
            keys=tuple(proto.keys),
            sticky=sticky,
            preview_header=proto.preview_header,
            mirror=mirror,
            timeouts=timeouts or Timeouts(),
            retries=retries or Retries(),
            rewrite=rewrite,
            affinity=affinity,
            rate_limits=tuple(limit for limit in limits if limit is not None),
            patches=patches,
            labels=dict(proto.labels),
        ),
        skip="split" if split is None else None,
    )
    c.check()
    assert model is not None
    return model


def _placeholder(index: int, proto: model_pb2.Version) -> Version:
    """Return a version in place of an invalid one, so that errors of the other parts of the model are reported, too."""
    endpoints = (Endpoint("127.0.0.1", 1),)
    try:
        return Version(proto.name, endpoints)
    except Error:
        return Version(f"placeholder-{index}", endpoints)


def _split(proto: model_pb2.Model, versions: list[Version], live: Model | None) -> dict[str, int]:
    """Return the split of a message; if it is unset, the live one or the default of a new model."""
    if proto.split:
        return dict(proto.split)
    if live is None:
        # A new model has no users yet, so the default moves no traffic.
        first = next((v.name for v in versions if v.endpoints), versions[0].name if versions else "")
        return {first: FULL_SHARE} if first else {}
    index = {v.name: i for i, v in enumerate(versions)}
    c = Collector()
    for name, share in live.split.items():
        with c.within(""):
            if name not in index:
                raise failed_precondition(
                    "VERSION_HAS_SHARE",
                    "versions",
                    f"version '{name}' has {percent_of_traffic(share)} of the traffic: switch it away first, then leave "
                    "the version out",
                )
            if not versions[index[name]].endpoints:
                raise failed_precondition(
                    "NO_ENDPOINTS",
                    f"versions[{index[name]}].endpoints",
                    f"version '{name}' has {percent_of_traffic(share)} of the traffic and would have no endpoint left: "
                    "switch it away first",
                )
    c.check()
    return dict(live.split)


def _mirror(proto: model_pb2.Mirror) -> Mirror:
    default = Mirror("placeholder")
    return Mirror(
        version=proto.version,
        basis_points=number(proto, "basis_points", default),
        max_request_bytes=number(proto, "max_request_bytes", default),
        max_requests=number(proto, "max_requests", default),
        timeout=seconds(proto.timeout),
    )


def _mirror_to_proto(mirror: Mirror) -> model_pb2.Mirror:
    proto = model_pb2.Mirror(
        version=mirror.version,
        basis_points=mirror.basis_points,
        max_request_bytes=mirror.max_request_bytes,
        max_requests=mirror.max_requests,
    )
    if mirror.timeout:
        proto.timeout.CopyFrom(duration(mirror.timeout))
    return proto


def _sticky(proto: model_pb2.Sticky) -> Sticky:
    return Sticky(header=proto.header, cookie=proto.cookie)


def _timeouts(proto: model_pb2.Timeouts) -> Timeouts:
    default = Timeouts()
    return Timeouts(
        request=seconds(proto.request) if proto.HasField("request") else default.request,
        idle=seconds(proto.idle) if proto.HasField("idle") else default.idle,
    )


def _retries(proto: model_pb2.Retries) -> Retries:
    default = Retries()
    return Retries(
        attempts=number(proto, "attempts", default),
        unsafe=proto.unsafe,
        per_try_timeout=seconds(proto.per_try_timeout),
        request_body_buffer_limit=number(proto, "request_body_buffer_limit", default),
    )


CONVERTER = Converter(model_from_proto, model_to_proto, kept_if_unset=frozenset({"split"}))
