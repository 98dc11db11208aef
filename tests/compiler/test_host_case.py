"""Hosts in capital letters. `tests/envoy/test_keys.py` has requests with them."""

from __future__ import annotations

from controlplane.compiler.decode import decoded, unpack
from controlplane.compiler.host_case import lower_case_host
from controlplane.compiler.listeners import compile_listener
from controlplane.domain import Gateway, HeaderRouting, HostRouting, PathRouting, Routing


def test_only_hosts_with_capital_letters_are_changed() -> None:
    delegate = unpack(lower_case_host().typed_config)
    (matcher,) = delegate.xds_matcher.matcher_list.matchers
    assert matcher.predicate.not_matcher.single_predicate.value_match.safe_regex.regex == ".*[A-Z].*"
    assert matcher.on_match.action.typed_config.type_url.endswith(".SkipFilter")
    assert "clearRouteCache" in unpack(delegate.extension_config.typed_config).default_source_code.inline_string


def test_only_host_gateways_look_at_the_case() -> None:
    def has_filter(routing: Routing) -> bool:
        listener = decoded(compile_listener(Gateway("edge", 80, routing=routing)))
        manager = unpack(listener.filter_chains[0].filters[0].typed_config)
        return lower_case_host().name in [f.name for f in manager.http_filters]

    assert [has_filter(r) for r in (HostRouting(), PathRouting(), HeaderRouting("x-model"))] == [True, False, False]
