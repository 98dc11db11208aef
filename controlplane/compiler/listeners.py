"""Listeners: one for each gateway, named after its address. It does not change with models: that would drain connections.

Why it is not named after the gateway: Envoy applies the listeners of a response one by one, and refuses a listener whose
address another one still has. So it would refuse two gateways that swap ports, or a gateway that takes over the port of
another, and the port could close. With the address as its name, a port that stays in use is one listener. It is updated in
place, whichever gateway it belongs to. If a gateway changes its port, one listener is added and one is removed. Scopes have
the address in their key too, so requests to a port find their models before and after the change.

How a request finds its model: scopes are matched on the parts of a key, and each part is taken from a header. The path
(`:path`, split at `/`) does not work, for two reasons. A query string is part of `:path`, so `/v2/models/iris?x=1` would look
for `iris?x=1`. And all listeners of an Envoy share its scopes. So the listener first sets the header `x-turnout-scope`:

    the path names the model          `SCOPE/v2/models/iris`: part 0 is the gateway's scope, part N the path's segment N
    a header or the host names it     `SCOPE`: part 0 is the gateway's scope; the other part comes from that header
    the body names it                 `SCOPE|*`: a filter replaces the `*` when it has found the name (`body_routing.py`)

The scope is the address of the gateway, or an earlier one.

It overwrites a header of this name that a client sent, and each RouteConfiguration removes it before the request goes to the
model server.

The listener's TLS is for connections of clients. The listener names the certificate and the authorities, which are sent as
Secrets (`secrets.py`).
"""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from google.protobuf import wrappers_pb2

from controlplane.compiler.access_log import access_log, compile_collector
from controlplane.compiler.body_buffer import buffer_filter
from controlplane.compiler.body_routing import model_filter
from controlplane.compiler.body_script import SEPARATOR, START
from controlplane.compiler.client_filters import client_filters
from controlplane.compiler.functions import NO_FUNCTIONS, Functions
from controlplane.compiler.grpc_models import name_filter
from controlplane.compiler.host_case import lower_case_host
from controlplane.compiler.local_replies import set_local_replies
from controlplane.compiler.message import duration, over_ads, packed, resource, set_header, socket_address
from controlplane.compiler.patches import added_clusters, listener_secrets, patched_listener
from controlplane.compiler.rate_limits import add_rate_limits, filter_names
from controlplane.compiler.secrets import over_sds
from controlplane.domain import BodyRouting, Gateway, GatewayTls, HeaderRouting, HostRouting, PathRouting, TlsVersion
from controlplane.envoy_types import CLUSTER, EXTENSIONS, LISTENER, SCOPED_ROUTES, SECRET
from controlplane.snapshot import Resource

# Set by the listener, read by its scope key, removed by the route.
SCOPE_HEADER = "x-turnout-scope"

HCM = "envoy.filters.network.http_connection_manager"

_BUFFER = 1 << 20  # bytes that Envoy buffers for a connection on either side; more stays in the socket

# The host of a request over HTTP/1.0 without a Host header. No model has this key.
_NO_HOST = "no-host.invalid"


def compile_listener(gateway: Gateway, functions: Functions = NO_FUNCTIONS) -> Resource:
    """Return the listener of a gateway."""
    listener = listener_pb2.Listener(
        name=gateway.host_port,  # no two gateways of a node share it
        address=socket_address(gateway.address, gateway.port),
        traffic_direction=base_pb2.TrafficDirection.INBOUND,
        per_connection_buffer_limit_bytes=wrappers_pb2.UInt32Value(value=_BUFFER),
    )
    listener.address.socket_address.protocol = address_pb2.SocketAddress.TCP
    manager = listener_components_pb2.Filter(name=HCM, typed_config=packed(_connection_manager(gateway)))
    chain = listener.filter_chains.add(filters=[manager])
    if gateway.tls is not None:
        chain.transport_socket.name = "envoy.transport_sockets.tls"
        chain.transport_socket.typed_config.CopyFrom(packed(_tls(gateway.tls)))
        # For a client that opens a connection and does not complete the handshake.
        chain.transport_socket_connect_timeout.CopyFrom(duration(10))
    clusters = [cluster.name for cluster in compile_collector(gateway)]
    secrets = {reference.label for reference in gateway.tls_references}
    if gateway.patches:
        listener = patched_listener(gateway, listener, functions)
        clusters += added_clusters(gateway)
        secrets |= listener_secrets(listener)
    references = [*((SECRET, label) for label in secrets), *((CLUSTER, name) for name in clusters)]
    references += [(EXTENSIONS, name) for name in filter_names(gateway)]
    return resource(LISTENER, listener, [*references, (SCOPED_ROUTES, gateway.scope)])


_VERSIONS = {
    TlsVersion.TLS_1_2: common_pb2.TlsParameters.TLSv1_2,
    TlsVersion.TLS_1_3: common_pb2.TlsParameters.TLSv1_3,
}


def _tls(tls: GatewayTls) -> Any:
    context = tls_pb2.DownstreamTlsContext()
    common = context.common_tls_context
    common.tls_params.tls_minimum_protocol_version = _VERSIONS[tls.min_version]
    common.tls_params.tls_maximum_protocol_version = common_pb2.TlsParameters.TLSv1_3
    common.alpn_protocols.extend(("h2", "http/1.1"))
    common.tls_certificate_sds_secret_configs.append(over_sds(tls.certificate))
    if tls.client_ca:
        common.validation_context_sds_secret_config.CopyFrom(over_sds(tls.client_ca))
        context.require_client_certificate.value = True
    return context


def _connection_manager(gateway: Gateway) -> Any:
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix=gateway.name,  # also names the listener's owner (`decode.owner`)
        codec_type=hcm_pb2.HttpConnectionManager.AUTO,
        # An edge: Envoy trusts no client's x-forwarded-for and x-envoy-* headers. An x-envoy-* header could ask for retries
        # that the model does not allow. No `internal_address_config`: without it no address is internal (Envoy 1.33 and
        # newer), while an empty one makes private addresses internal.
        use_remote_address=wrappers_pb2.BoolValue(value=True),
        # `/v2/models/iris/../wine` must not reach one model's servers under another's name. %2F stays: a model server may give
        # it a meaning, and it finds no other scope. So do double slashes, unless the path names the model.
        normalize_path=wrappers_pb2.BoolValue(value=True),
        path_with_escaped_slashes_action=hcm_pb2.HttpConnectionManager.KEEP_UNCHANGED,
        # For a client that opens a request and does not complete its headers. The body has the route's idle timeout.
        request_headers_timeout=duration(10),
        # The client's request id stays, and every response has it. A client without one gets Envoy's.
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
    )
    _set_protocols(manager, gateway)
    if isinstance(gateway.routing, BodyRouting):
        buffer_filter(manager, gateway.routing)
    for filter_name, config in client_filters(gateway):
        manager.http_filters.add(name=filter_name, typed_config=packed(config))
    if isinstance(gateway.routing, BodyRouting):
        name_filter(manager)
        model_filter(manager, SCOPE_HEADER)
    set_local_replies(manager, gateway)
    add_rate_limits(manager, gateway)
    manager.http_filters.add(name="envoy.filters.http.router", typed_config=packed(router_pb2.Router()))
    if gateway.access_log is not None:
        manager.access_log.append(access_log(gateway))

    _find_scope(manager, gateway)
    return manager


def _find_scope(manager: Any, gateway: Gateway) -> None:
    """Set how a request finds its scope: the header that the listener sets first, and the parts of the key."""
    scoped = manager.scoped_routes
    scoped.name = gateway.scope
    scoped.rds_config_source.CopyFrom(over_ads())
    scoped.scoped_rds.scoped_rds_config_source.CopyFrom(over_ads())
    # The zone of an IPv6 address begins with %, which Envoy would read as the start of a command.
    header = gateway.scope.replace("%", "%%")
    set_scope = header_mutation_pb2.HeaderMutation()
    _fragment(scoped, SCOPE_HEADER, SEPARATOR if isinstance(gateway.routing, BodyRouting) else "/", 0)
    match gateway.routing:
        case PathRouting(segment=segment):
            # A client writes `//v2/…` if its base URL ends with a slash.
            manager.merge_slashes = True
            # The slashes after the path give a path that is too short an empty key, for the gateway's own answers.
            header += "%PATH(NQ:PATH)%" + "/" * segment
            _fragment(scoped, SCOPE_HEADER, "/", segment)
        case HeaderRouting(name=name):
            _fragment(scoped, name)
            # A request without the header gets an empty key, for the gateway's own answers.
            empty = set_scope.mutations.add().append
            empty.header.key = name
            empty.append_action, empty.keep_empty_value = base_pb2.HeaderValueOption.ADD_IF_ABSENT, True
        case HostRouting():
            manager.http_filters.insert(0, lower_case_host())
            manager.strip_any_host_port = True
            manager.strip_trailing_host_dot = True
            _fragment(scoped, ":authority")
        case BodyRouting():
            header += f"{SEPARATOR}{START}"
            _fragment(scoped, SCOPE_HEADER, SEPARATOR, 1)
    set_header(set_scope.mutations, SCOPE_HEADER, header)
    manager.early_header_mutation_extensions.add(
        name="envoy.http.early_header_mutation.header_mutation", typed_config=packed(set_scope)
    )


def _set_protocols(manager: Any, gateway: Gateway) -> None:
    """Set the options of HTTP/1, HTTP/2 and WebSockets."""
    # HTTP/1 has trailers too, for example at the end of a streamed answer.
    manager.http_protocol_options.enable_trailers = True
    # Older proxies and load balancers speak HTTP/1.0. A host gateway needs their Host header, which 1.0 does not require.
    manager.http_protocol_options.accept_http_10 = True
    manager.http_protocol_options.default_host_for_http_10 = _NO_HOST
    # WebSockets: over HTTP/1, and as extended CONNECT (RFC 8441) over HTTP/2. No route accepts any other CONNECT.
    manager.upgrade_configs.add(upgrade_type="websocket")
    manager.http2_protocol_options.allow_connect = True
    # Tensors are large: with a window of 64 KiB a stream would wait a round trip for each 64 KiB.
    # The window is also Envoy's limit for what a filter keeps, like the first message of a call that streams.
    window = gateway.routing.max_body_bytes if isinstance(gateway.routing, BodyRouting) else _BUFFER
    manager.http2_protocol_options.initial_stream_window_size.value = window
    manager.http2_protocol_options.initial_connection_window_size.value = 16 * _BUFFER
    manager.http2_protocol_options.max_concurrent_streams.value = 1000


def _fragment(scoped: Any, header: str, separator: str = "", index: int = 0) -> None:
    extractor = scoped.scope_key_builder.fragments.add().header_value_extractor
    extractor.name = header
    extractor.element_separator = separator
    extractor.index = index
