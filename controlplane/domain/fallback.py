"""Fallbacks: the versions that take over when the chosen version can't answer.

A request's version is chosen first, by sticky key and split. Its fallbacks, in order, then answer the requests that it can't:
it has no healthy endpoint, or it answers 429 or 503. A fallback's own fallbacks are not used, so there are no cycles.

Known limit: neither of two such versions can change requests (`Version.host`, `rewrite` …). Envoy makes these changes once,
for the version that was chosen (envoyproxy/envoy#29318). A fallback would get the other version's headers, and its credential.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.domain.checks import check_distinct, check_range
from controlplane.domain.version import Protocol, Version
from controlplane.errors import Collector, did_you_mean, invalid

_MAX_FALLBACKS = 4


def check_fallbacks(versions: Sequence[Version], mirror: str) -> None:
    """Check the fallbacks of a model's versions. `mirror` is the version that gets copies of the model's requests, or "".

    Errors: INVALID_ARGUMENT at `versions[I].fallback[J]`, or at `mirror.version`.
    """
    c = Collector()
    by_name = {v.name: v for v in versions}
    for i, version in enumerate(versions):
        field = f"versions[{i}].fallback"
        with c.within(""):
            check_range(len(version.fallback), 0, _MAX_FALLBACKS, field)
            check_distinct(version.fallback, field)
        for j, name in enumerate(version.fallback):
            with c.within(""):
                _check_fallback(by_name, version, name, f"{field}[{j}]")
    with c.within(""):
        if user := next((v.name for v in versions if mirror in v.fallback), ""):
            raise invalid(
                "mirror.version",
                f"'{mirror}' is a fallback of '{user}', so it would get some requests twice: choose another version",
            )
    c.check()


def _check_fallback(by_name: dict[str, Version], version: Version, name: str, field: str) -> None:
    fallback = by_name.get(name)
    if fallback is None:
        hint = did_you_mean(name, list(by_name)) or f"there are: {', '.join(by_name)}"
        raise invalid(field, f"there is no version '{name[:80]}'; {hint}", "UNKNOWN_VERSION")
    if fallback is version:
        raise invalid(field, f"'{name}' can't be its own fallback")
    if not fallback.endpoints:
        raise invalid(field, f"'{name}' has no endpoints, so it can't take over", "NO_ENDPOINTS")
    if (fallback.protocol is Protocol.GRPC) != (version.protocol is Protocol.GRPC):
        raise invalid(field, f"one of '{version.name}' and '{name}' speaks gRPC, and the other does not")
    for one, other in ((version, fallback), (fallback, version)):
        if change := change_of_requests(one):
            raise invalid(
                field,
                f"'{one.name}' has `{change}`, which Envoy can't apply to it alone when '{one.name}' and '{other.name}' take "
                "over from each other: let the model servers, or a gateway of their own, make that change",
            )


def change_of_requests(version: Version) -> str:
    """Return the field with which a version changes its requests; "" if it changes nothing."""
    fields = ("host", "rewrite", "request_headers", "credential", "upstream_model")
    return next((field for field in fields if getattr(version, field)), "")


def fallback_users(versions: Sequence[Version], name: str) -> list[str]:
    """Return the names of the versions that have a version as a fallback."""
    return [v.name for v in versions if name in v.fallback]
