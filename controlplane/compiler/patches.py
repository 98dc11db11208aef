"""Apply the patches of gateways, models and versions to the resources that are compiled from them.

    gateway   the listener, its filter chain and its HTTP connection manager; new clusters for the filters that patches add
    model     the virtual host and the routes of its RouteConfiguration
    version   its clusters: its own, the one of its copies, and the ones in which it is a fallback

Patches of one object are applied in their order; a function gets the result of the patches before it. After each of them the
rules are checked (`patch_rules.py`), so that an error names the patch. A patch that does not fit is never
skipped: the revision is refused.

A switch of a model sends its patches, too. So the routes may have only so many bytes with them. The bytes are counted on the
split with the largest routes, or a switch could be refused because of a patch.

gRPC clients that use xDS themselves get resources without patches (`proxyless.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from google.protobuf.message import DecodeError

from controlplane.compiler import patch_rules as rules
from controlplane.compiler.decode import unpack
from controlplane.compiler.functions import FunctionCall, FunctionFailed, Functions
from controlplane.compiler.merge_patch import MergeError, merged, repack
from controlplane.compiler.message import packed, resource
from controlplane.domain import Gateway, Model, Patch, PatchTarget, Version
from controlplane.envoy_types import CLUSTER, SECRET
from controlplane.errors import Error, abbreviated, failed_precondition, invalid, within
from controlplane.snapshot import Resource

REASON = "PATCH_REFUSED"
# A function failed, or there is none of its hash.
FUNCTION_REASON = "PATCH_FUNCTION_FAILED"


def added_cluster_name(gateway: Gateway, patch: Patch) -> str:
    """Return `gateways/GATEWAY/patches/PATCH`."""
    return f"{gateway.resource_name}/patches/{patch.name}"


def added_clusters(gateway: Gateway) -> list[str]:
    """Return the names of the clusters that a gateway's patches add."""
    return [added_cluster_name(gateway, patch) for patch in gateway.patches if patch.target is PatchTarget.ADD_CLUSTER]


def compile_added_clusters(gateway: Gateway) -> list[Resource]:
    """Return the clusters that a gateway's patches add. Errors: INVALID_ARGUMENT / PATCH_REFUSED."""
    clusters = []
    for path, patch in _numbered(gateway.resource_name, gateway.patches, PatchTarget.ADD_CLUSTER):
        name = added_cluster_name(gateway, patch)
        with _refused(f"{path}.{patch.target.value}"):
            cluster = merged(cluster_pb2.Cluster(name=name), patch.form)
            if cluster.HasField("load_assignment") and not cluster.load_assignment.cluster_name:
                cluster.load_assignment.cluster_name = name
            rules.check_added_cluster(cluster, name, rules.Names(secrets=set(gateway.patch_secrets)))
        secrets = rules.names_of(cluster).secrets
        clusters.append(resource(CLUSTER, cluster, [(SECRET, secret) for secret in secrets]))
    return clusters


def patched_listener(gateway: Gateway, listener: Any, functions: Functions) -> Any:
    """Return the listener of a gateway with its patches applied.

    Errors: INVALID_ARGUMENT / PATCH_REFUSED; FAILED_PRECONDITION / PATCH_FUNCTION_FAILED.
    """
    allowed = rules.Names(set(added_clusters(gateway)), set(gateway.patch_secrets))
    patched = listener
    for i, patch in enumerate(gateway.patches):
        if patch.target is PatchTarget.ADD_CLUSTER:
            continue
        with _refused(f"{gateway.resource_name}.patches[{i}].{patch.target.value}"):
            patched = _patched_listener(patched, patch, functions)
            rules.check_listener(listener, patched, allowed)
    return patched


def listener_secrets(listener: Any) -> set[str]:
    """Return the names of the secrets that a listener names."""
    return rules.names_of(listener).secrets


def _patched_listener(listener: Any, patch: Patch, functions: Functions) -> Any:
    form = patch.form
    if patch.target is PatchTarget.FUNCTION:
        return _called(functions, patch, listener)
    if patch.target is PatchTarget.LISTENER:
        if "filter_chains" in form or "filterChains" in form:
            raise rules.RuleError("filter_chains: use a patch of `filter_chain` or `connection_manager`")
        return merged(listener, form)
    changed = type(listener)()
    changed.CopyFrom(listener)
    chain = changed.filter_chains[0]
    if patch.target is PatchTarget.FILTER_CHAIN:
        chain.CopyFrom(merged(chain, form))
        return changed
    network_filter = chain.filters[-1]
    manager = unpack(network_filter.typed_config)
    if patch.target is PatchTarget.CONNECTION_MANAGER:
        manager = merged(manager, form)
    else:
        _add_filter(manager, patch, form)
    network_filter.typed_config.CopyFrom(packed(manager))
    return changed


def _add_filter(manager: Any, patch: Patch, form: Any) -> None:
    added = merged(hcm_pb2.HttpFilter(), form)
    if not added.HasField("typed_config"):
        raise rules.RuleError("filter.typed_config: is required")
    names = [f.name for f in manager.http_filters]
    if wanted := patch.before or patch.after:
        if wanted not in names:
            place = "before" if patch.before else "after"
            raise rules.RuleError(f"{place}: there is no filter '{wanted}'; there are: {abbreviated(names, 20)}")
        index = names.index(wanted) + (1 if patch.after else 0)
    else:
        index = len(names) - 1
    manager.http_filters.insert(index, added)


def patched_routes(model: Model, config: Any, widest: Any, functions: Functions) -> Any:
    """Return the routes of a model with its patches applied. `widest` are its routes with the split that makes them largest.

    Errors: those of `patched_listener`.
    """
    patched, size = config, widest.ByteSize()
    limit = rules.MAX_ROUTE_BYTES_WITH_GRPC_PORTS if model.has_grpc_ports else rules.MAX_ROUTE_BYTES
    for i, patch in enumerate(model.patches):
        with _refused(f"{model.resource_name}.patches[{i}].{patch.target.value}"):
            patched = _patched_routes(patched, patch, functions)
            rules.check_routes(config, patched, rules.Names())
            widest = _patched_routes(widest, patch, functions)
            if widest.ByteSize() > max(size, limit):
                raise rules.RuleError(
                    f"the model's routes, which each switch sends, would have up to {widest.ByteSize():,} bytes instead of "
                    f"{size:,}, but may have {limit:,} with patches: patch the gateway instead"
                )
    return patched


def _patched_routes(config: Any, patch: Patch, functions: Functions) -> Any:
    if patch.target is PatchTarget.FUNCTION:
        return _called(functions, patch, config)
    changed = type(config)()
    changed.CopyFrom(config)
    (host,) = changed.virtual_hosts
    form = patch.form
    if patch.target is PatchTarget.VIRTUAL_HOST:
        if "routes" in form:
            raise rules.RuleError("routes: use a patch of `route`")
        host.CopyFrom(merged(host, form))
    else:
        for route in host.routes:
            route.CopyFrom(merged(route, form))
    return changed


def patched_cluster(version: Version, cluster: Any, functions: Functions) -> Any:
    """Return a cluster of a version with its patches applied.

    Errors: those of `patched_listener`, by the path in the version.
    """
    patched = cluster
    allowed = rules.Names(secrets={label for _, label, _ in version.secrets})
    for i, patch in enumerate(version.patches):
        with _refused(f"patches[{i}].{patch.target.value}"):
            if patch.target is PatchTarget.FUNCTION:
                patched = _called(functions, patch, patched)
            else:
                patched = merged(patched, patch.form)
            rules.check_cluster(cluster, patched, allowed)
    return patched


def _called(functions: Functions, patch: Patch, message: Any) -> Any:
    """Return what a function makes of a message. Errors: FunctionFailed."""
    body = message.SerializeToString(deterministic=True)
    call = FunctionCall(patch.hash, patch.function, patch.content, message.DESCRIPTOR.full_name, body)
    try:
        result = type(message).FromString(functions.call(call))
    except DecodeError:
        raise FunctionFailed(f"returned no {message.DESCRIPTOR.name}") from None
    repack(result)
    return result


def is_about_patches(error: Error) -> bool:
    """Return True if an error of the compiler is about a patch."""
    return error.reason in (REASON, FUNCTION_REASON)


@contextmanager
def within_version(model: Model, version: str) -> Iterator[None]:
    """Raise errors of the `with` block, which are about a version of a model, again with the path of the version."""
    index = [v.name for v in model.versions].index(version)
    with within(f"{model.resource_name}.versions[{index}]"):
        yield


def _numbered(name: str, patches: tuple[Patch, ...], target: PatchTarget) -> Iterator[tuple[str, Patch]]:
    for i, patch in enumerate(patches):
        if patch.target is target:
            yield f"{name}.patches[{i}]", patch


@contextmanager
def _refused(field: str) -> Iterator[None]:
    """Raise errors of the `with` block again, as an Error about a field."""
    try:
        yield
    except (MergeError, rules.RuleError) as error:
        raise invalid(field, str(error), REASON) from None
    except FunctionFailed as error:
        raise failed_precondition(FUNCTION_REASON, field, str(error)) from None
