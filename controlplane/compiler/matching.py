"""HTTP filters that run only for some requests or responses: Envoy's `match_delegate`, with predicates on headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from xds.type.matcher.v3 import matcher_pb2

from controlplane.compiler.message import packed

_PREDICATE = matcher_pb2.Matcher.MatcherList.Predicate


def filter_if(predicate: Any, name: str, config: Any) -> Any:
    """Return the configuration of a filter that runs only where a predicate is true. `config` is that of the inner filter."""
    delegate = extension_matcher_pb2.ExtensionWithMatcher()
    delegate.extension_config.name = name
    delegate.extension_config.typed_config.CopyFrom(packed(config))
    matcher = delegate.xds_matcher.matcher_list.matchers.add()
    matcher.predicate.CopyFrom(negated(predicate))
    matcher.on_match.action.name = "skip"
    matcher.on_match.action.typed_config.CopyFrom(packed(skip_action_pb2.SkipFilter()))
    return delegate


def request_header(name: str, regex: str) -> Any:
    """Return the predicate that a request has a header whose whole value matches."""
    return _header(http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=name), regex)


def response_header(name: str, regex: str) -> Any:
    """Return the predicate that a response has a header whose whole value matches."""
    return _header(http_inputs_pb2.HttpResponseHeaderMatchInput(header_name=name), regex)


def every(predicates: Sequence[Any]) -> Any:
    """Return the predicate that all of at least two predicates are true."""
    return _PREDICATE(and_matcher=_PREDICATE.PredicateList(predicate=predicates))


def either(predicates: Sequence[Any]) -> Any:
    """Return the predicate that at least one of at least two predicates is true."""
    return _PREDICATE(or_matcher=_PREDICATE.PredicateList(predicate=predicates))


def negated(predicate: Any) -> Any:
    """Return the predicate that another one is false."""
    return _PREDICATE(not_matcher=predicate)


def _header(source: Any, regex: str) -> Any:
    predicate = _PREDICATE()
    single = predicate.single_predicate
    single.input.name = "header"
    single.input.typed_config.CopyFrom(packed(source))
    single.value_match.safe_regex.google_re2.SetInParent()
    single.value_match.safe_regex.regex = regex
    return predicate
