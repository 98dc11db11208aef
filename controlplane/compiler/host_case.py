"""Hosts in capital letters mean the same as in lower case (RFC 9110, section 4.2.3). Envoy compares them as they are.

Envoy has no scope key that ignores case, and no formatter that changes it. So a script writes the host in lower case, and
Envoy looks for the scope again. A matcher skips the script for every host without capital letters, which is nearly every one.
"""

from __future__ import annotations

from typing import Any

from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from xds.type.matcher.v3 import regex_pb2

from controlplane.compiler.message import packed

_LOWER_CASE = """\
function envoy_on_request(handle)
  local headers = handle:headers()
  headers:replace(":authority", headers:get(":authority"):lower())
  handle:clearRouteCache()
end
"""


def lower_case_host() -> Any:
    """Return the HTTP filter that writes the host of a request in lower case."""
    lua = lua_pb2.Lua()
    lua.default_source_code.inline_string = _LOWER_CASE
    delegate = extension_matcher_pb2.ExtensionWithMatcher()
    delegate.extension_config.name = "envoy.filters.http.lua"
    delegate.extension_config.typed_config.CopyFrom(packed(lua))
    matcher = delegate.xds_matcher.matcher_list.matchers.add()
    has_capitals = matcher.predicate.not_matcher.single_predicate
    has_capitals.input.name = "host"
    has_capitals.input.typed_config.CopyFrom(packed(http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=":authority")))
    has_capitals.value_match.safe_regex.CopyFrom(
        regex_pb2.RegexMatcher(google_re2=regex_pb2.RegexMatcher.GoogleRE2(), regex=".*[A-Z].*")
    )
    matcher.on_match.action.name = "skip"
    matcher.on_match.action.typed_config.CopyFrom(packed(skip_action_pb2.SkipFilter()))
    return hcm_pb2.HttpFilter(name="turnout.lower_case_host", typed_config=packed(delegate))
