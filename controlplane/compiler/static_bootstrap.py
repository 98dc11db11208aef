"""Turn a snapshot into a static bootstrap, so that a real Envoy can check the snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from google.protobuf import json_format

from controlplane.compiler.decode import decoded, unpack
from controlplane.compiler.message import packed
from controlplane.envoy_types import CLUSTER, ENDPOINTS, EXTENSIONS, LISTENER, ROUTES, SCOPED_ROUTES, SECRET
from controlplane.snapshot import Resource, Resources, Snapshot


def static_bootstrap(snapshot: Snapshot, placeholder: tuple[str, str] = ("", "")) -> dict[str, object]:
    """Return a bootstrap in JSON form with a whole snapshot inline, so that an Envoy with it subscribes to nothing.

    Every certificate that has a key is replaced by `placeholder`, a worthless certificate and its key in PEM, and every opaque
    value by a word. `placeholder` is needed only if the snapshot has such a certificate.
    """
    routes = {name: decoded(r) for name, r in snapshot.resources[ROUTES].items()}
    scopes: dict[str, list[Any]] = {}
    for resource in snapshot.resources[SCOPED_ROUTES].values():
        scope = decoded(resource)
        scope.route_configuration.CopyFrom(routes[scope.route_configuration_name])
        scope.ClearField("route_configuration_name")
        scopes.setdefault(resource.name.partition("/")[0], []).append(scope)
    listeners = [_static_listener(r, scopes, snapshot.resources[EXTENSIONS]) for r in snapshot.resources[LISTENER].values()]
    clusters = [_static_cluster(r, snapshot.resources[ENDPOINTS].get(r.name)) for r in snapshot.resources[CLUSTER].values()]
    static = {"listeners": [_json(m) for m in listeners], "clusters": [_json(m) for m in clusters]}
    if secrets := [_json(_static_secret(r, placeholder)) for r in snapshot.resources[SECRET].values()]:
        static["secrets"] = secrets
    return {"node": {"id": "static", "cluster": "static"}, "static_resources": static}


def _static_secret(resource: Resource, placeholder: tuple[str, str]) -> Any:
    secret = decoded(resource)
    if secret.HasField("tls_certificate"):
        chain, key = placeholder
        secret.tls_certificate.certificate_chain.inline_string = chain
        secret.tls_certificate.private_key.inline_string = key
    if secret.HasField("generic_secret"):
        secret.generic_secret.secret.inline_string = "placeholder"
    return secret


def _use_static_secrets(socket: Any) -> None:
    """Make a transport socket take the secrets that it names from the bootstrap."""
    if not socket.HasField("typed_config"):
        return
    context = unpack(socket.typed_config)
    common = context.common_tls_context
    configs = [*common.tls_certificate_sds_secret_configs]
    if common.HasField("validation_context_sds_secret_config"):
        configs.append(common.validation_context_sds_secret_config)
    if common.HasField("combined_validation_context"):
        configs.append(common.combined_validation_context.validation_context_sds_secret_config)
    for config in configs:
        config.ClearField("sds_config")
    socket.typed_config.CopyFrom(packed(context))


def _use_static_credentials(cluster: Any) -> None:
    """Make the credential injector of a cluster take its secret from the bootstrap."""
    for options in cluster.typed_extension_protocol_options.values():
        protocol = unpack(options)
        for http_filter in protocol.http_filters:
            if http_filter.typed_config.type_url.endswith(".CredentialInjector"):
                injector = unpack(http_filter.typed_config)
                generic = unpack(injector.credential.typed_config)
                generic.credential.ClearField("sds_config")
                injector.credential.typed_config.CopyFrom(packed(generic))
                http_filter.typed_config.CopyFrom(packed(injector))
        options.CopyFrom(packed(protocol))


def _static_cluster(resource: Resource, endpoints: Resource | None) -> Any:
    cluster = decoded(resource)
    _use_static_secrets(cluster.transport_socket)
    _use_static_credentials(cluster)
    if endpoints is not None:
        cluster.ClearField("eds_cluster_config")
        cluster.type = cluster.STATIC
        cluster.load_assignment.CopyFrom(decoded(endpoints))
    return cluster


def _static_listener(resource: Resource, scopes: Mapping[str, list[Any]], extensions: Resources) -> Any:
    """Return a listener with its scopes and filters inline. `scopes` are by the first part of their names."""
    listener = decoded(resource)
    _use_static_secrets(listener.filter_chains[0].transport_socket)
    network = listener.filter_chains[0].filters[0]
    manager = unpack(network.typed_config)
    if own := scopes.get(manager.scoped_routes.name):
        manager.scoped_routes.ClearField("rds_config_source")
        manager.scoped_routes.scoped_route_configurations_list.scoped_route_configurations.extend(own)
    else:
        # Envoy refuses an empty list of scopes.
        manager.route_config.CopyFrom(hcm_pb2.HttpConnectionManager().route_config)
    for http_filter in manager.http_filters:
        if http_filter.HasField("config_discovery"):
            http_filter.typed_config.CopyFrom(decoded(extensions[http_filter.name]).typed_config)
    network.typed_config.CopyFrom(packed(manager))
    return listener


def _json(message: Any) -> dict[str, object]:
    form: dict[str, object] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return form
