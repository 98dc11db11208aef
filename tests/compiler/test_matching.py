"""Filters that run only where a predicate is true."""

from __future__ import annotations

from envoy.extensions.filters.http.router.v3 import router_pb2

from controlplane.compiler.decode import unpack
from controlplane.compiler.matching import every, filter_if, negated, request_header, response_header
from controlplane.compiler.validation import Validator


def test_a_filter_is_skipped_where_its_predicate_is_false() -> None:
    predicate = every((request_header("origin", ".+"), negated(response_header("x", "a|b"))))
    config = filter_if(predicate, "inner", router_pb2.Router())
    assert list(Validator()._constraints.problems(config)) == []
    assert unpack(config.extension_config.typed_config) == router_pb2.Router()
    (matcher,) = config.xds_matcher.matcher_list.matchers
    assert matcher.predicate.not_matcher == predicate
    assert matcher.on_match.action.typed_config.type_url.endswith(".SkipFilter")
    assert not config.xds_matcher.HasField("on_no_match")
