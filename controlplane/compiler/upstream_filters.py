"""Upstream HTTP filters: the changes that a version makes to each of its requests, in the cluster of the version.

They are in the cluster, and not in the route, for three reasons. A switch stays one small RouteConfiguration. Copies for a
mirror get the changes of the version that they go to. And a retry passes them again, with the original body.

Envoy keeps the headers of a request between its tries, with the changes that the filters made. So each filter must give the
same result if it is applied to its own result.

    header_mutation       sets and removes headers
    lua                   rewrites the path, and the name of the model in the body (`upstream_lua.py`)
    credential_injector   adds the credential, which comes over SDS, and is therefore in no cluster

The Host header is set by the route, because `header_mutation` can't set it. That of a copy is set by the mirror's policy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.extensions.filters.http.credential_injector.v3 import credential_injector_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.http.injected_credentials.generic.v3 import generic_pb2

from controlplane.compiler.message import packed
from controlplane.compiler.secrets import credential_name, over_sds
from controlplane.compiler.upstream_lua import script
from controlplane.domain import Credential, RequestHeaders, Version

HTTP_FILTERS = "envoy.filters.http"


def upstream_filters(version: Version, first: Iterable[Any] = ()) -> list[Any]:
    """Return the HTTP filters of a version's cluster, after `first`. Empty if they change no requests: Envoy has a default."""
    filters = [*first]
    if version.request_headers is not None:
        filters.append(http_filter("header_mutation", _header_mutation(version.request_headers)))
    if code := script(version):
        lua = lua_pb2.Lua(default_source_code=base_pb2.DataSource(inline_string=code))
        filters.append(http_filter("lua", lua))
    if version.credential is not None:
        filters.append(http_filter("credential_injector", _credential_injector(version.credential)))
    if filters:
        filters.append(http_filter("upstream_codec", upstream_codec_pb2.UpstreamCodec()))
    return filters


def http_filter(name: str, config: Any) -> Any:
    """Return an HTTP filter of Envoy, by its last name."""
    return hcm_pb2.HttpFilter(name=f"{HTTP_FILTERS}.{name}", typed_config=packed(config))


def header_options(headers: RequestHeaders | None) -> list[Any]:
    """Return the headers to set in Envoy's form. Envoy reads % as the start of a command, so it is doubled."""
    overwrite = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return [
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=name, value=value.replace("%", "%%")), append_action=overwrite
        )
        for name, value in (headers.set.items() if headers else ())
    ]


def _header_mutation(headers: RequestHeaders) -> Any:
    config = header_mutation_pb2.HeaderMutation()
    for option in header_options(headers):
        config.mutations.request_mutations.add().append.CopyFrom(option)
    for name in headers.remove:
        config.mutations.request_mutations.add(remove=name)
    return config


def _credential_injector(credential: Credential) -> Any:
    generic = generic_pb2.Generic(credential=over_sds(credential_name(credential)), header=credential.header)
    return credential_injector_pb2.CredentialInjector(
        overwrite=True,  # a client's own header of the same name must not reach the endpoints instead
        credential=extension_pb2.TypedExtensionConfig(
            name="envoy.http.injected_credentials.generic", typed_config=packed(generic)
        ),
    )
