"""An independent decoder, `envoy-data-plane`, reads the same messages from the bytes.

Its dataclasses come from another generator and another copy of the protos.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import pytest
from google.protobuf import json_format

from controlplane.compiler import Compiler, audiences
from controlplane.compiler.decode import decoded
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.envoy_types import ORDER
from tests.compiler.cases import CASES, read_state, widest

# Types inside a google.protobuf.Any can be decoded once their module is imported.
INSIDE = (
    "extensions.upstreams.http.v3",
    "extensions.transport_sockets.tls.v3",
    "extensions.filters.network.http_connection_manager.v3",
    "extensions.filters.http.buffer.v3",
    "extensions.filters.http.credential_injector.v3",
    "extensions.filters.http.header_mutation.v3",
    "extensions.filters.http.lua.v3",
    "extensions.filters.http.grpc_field_extraction.v3",
    "extensions.filters.http.ext_authz.v3",
    "extensions.filters.http.grpc_web.v3",
    "extensions.filters.http.router.v3",
    "extensions.filters.http.upstream_codec.v3",
    "extensions.http.early_header_mutation.header_mutation.v3",
    "extensions.http.injected_credentials.generic.v3",
    "extensions.retry.host.previous_hosts.v3",
    "extensions.access_loggers.filters.cel.v3",
    "extensions.load_balancing_policies.maglev.v3",
    "extensions.clusters.aggregate.v3",
    "extensions.retry.priority.previous_priorities.v3",
    "extensions.access_loggers.file.v3",
    "extensions.access_loggers.grpc.v3",
    "extensions.common.matching.v3",
    "extensions.filters.common.matcher.action.v3",
    "extensions.filters.http.health_check.v3",
    "extensions.filters.http.header_to_metadata.v3",
    "extensions.filters.http.local_ratelimit.v3",
    "extensions.filters.http.set_filter_state.v3",
    "extensions.matching.common_inputs.network.v3",
    "type.matcher.v3",
    "extensions.common.matching.v3",
    "extensions.filters.common.matcher.action.v3",
    "type.matcher.v3",
)


@pytest.fixture(scope="module")
def decoders() -> dict[str, Any]:
    """Return the decoders by type URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Its modules warn about pydantic when they are imported.
        for name in INSIDE:
            importlib.import_module(f"envoy_data_plane.envoy.{name}")
        modules = {t: importlib.import_module(f"envoy_data_plane.{_package(t)}") for t in ORDER}
    return {t: getattr(module, t.rpartition(".")[2]) for t, module in modules.items()}


def _package(type_url: str) -> str:
    return type_url.partition("/")[2].rpartition(".")[0]


def lower(form: Any) -> Any:
    """Return the form with its keys in lower case, and numbers as text.

    The decoders spell `consecutive_5xx` and numbers of 64 bits differently in JSON.
    """
    if isinstance(form, dict):
        return {k.lower(): lower(v) for k, v in form.items()}
    if isinstance(form, list):
        return [lower(v) for v in form]
    return str(form) if isinstance(form, int) and not isinstance(form, bool) else form


@pytest.mark.filterwarnings("ignore:WeightedCluster.total_weight is deprecated")  # some gRPC clients read it
@pytest.mark.parametrize("case", CASES)
def test_both_decoders_read_the_same(case: str, decoders: dict[str, Any]) -> None:
    state = read_state(case)
    for audience in widest(audiences(state)):
        snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, audience, 1)
        for type_url in ORDER:
            for resource in snapshot.resources[type_url].values():
                read = decoders[type_url].parse(resource.body).to_dict()
                assert lower(read) == lower(json_format.MessageToDict(decoded(resource)))
