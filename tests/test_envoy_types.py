"""The table of Envoy's types. No other module may spell a type URL."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from controlplane.envoy_types import (
    CLUSTER,
    COMPILED,
    ENDPOINTS,
    EXTENSIONS,
    FULL_STATE,
    LISTENER,
    NAMED_BY,
    ORDER,
    ROUTES,
    SCOPED_ROUTES,
    SECRET,
    SENSITIVE,
    TABLE,
    EnvoyType,
    short_name,
    url_of,
)

CONTROLPLANE = Path(__file__).parent.parent / "controlplane"


def test_the_order_is_make_before_break() -> None:
    assert ORDER == (CLUSTER, ENDPOINTS, SECRET, LISTENER, EXTENSIONS, SCOPED_ROUTES, ROUTES)


def test_sotw_sends_the_full_state_of_clusters_listeners_and_scopes() -> None:
    assert {CLUSTER, LISTENER, SCOPED_ROUTES} == FULL_STATE


def test_only_secrets_are_sensitive() -> None:
    assert {SECRET} == SENSITIVE


def test_which_types_may_name_a_type() -> None:
    assert NAMED_BY == {
        CLUSTER: (CLUSTER, ROUTES, LISTENER),
        ENDPOINTS: (CLUSTER,),
        SECRET: (CLUSTER, LISTENER),
        EXTENSIONS: (LISTENER,),
        ROUTES: (SCOPED_ROUTES, LISTENER),
    }


def test_short_names_are_the_names_of_the_messages() -> None:
    assert [short_name(t) for t in ORDER] == [
        "Cluster",
        "ClusterLoadAssignment",
        "Secret",
        "Listener",
        "TypedExtensionConfig",
        "ScopedRouteConfiguration",
        "RouteConfiguration",
    ]


@pytest.mark.parametrize("row", COMPILED.values(), ids=lambda row: row.abbreviation)
def test_a_row_has_the_class_of_its_message(row: EnvoyType) -> None:
    assert url_of(row.message_class().DESCRIPTOR.full_name) == row.url


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.method_stem)
def test_envoy_has_a_service_of_this_name_for_the_type(row: EnvoyType) -> None:
    package, _, name = f"envoy.service.{row.service}".rpartition(".")
    # `envoy.service.cluster.v3` is in cds_pb2, and so on.
    folder = importlib.import_module(package)
    files = (p.stem for path in folder.__path__ for p in Path(path).glob("*_pb2.py"))
    services = [importlib.import_module(f"{package}.{file}").DESCRIPTOR.services_by_name for file in files]
    methods = {m.name for by_name in services if name in by_name for m in by_name[name].methods}
    # For virtual hosts Envoy has the delta method only.
    assert {f"Delta{row.method_stem}"} <= methods
    assert (f"Stream{row.method_stem}" in methods) is (row.method_stem != "VirtualHosts")


def test_a_type_is_in_the_table_once() -> None:
    assert len({row.url for row in TABLE}) == len(TABLE)


def test_nothing_else_spells_a_type_url() -> None:
    files = (path for path in CONTROLPLANE.rglob("*.py") if "generated" not in path.parts)
    spelled = [path.name for path in files if '"type.googleapis.com' in path.read_text()]
    assert spelled == ["envoy_types.py"]
