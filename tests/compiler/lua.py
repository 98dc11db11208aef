"""The script of body gateways in Lua 5.1, whose language LuaJIT in Envoy has, with stand-ins for Envoy's objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controlplane.compiler.body_script import METADATA, START, script
from tests.tools import missing

HEADER = "x-scope"

# Envoy's handle of a request, its headers, its body and its stream info, as far as the script uses them.
_STAND_INS = f"""
function run_request(fields, content)
  local status, answer, model, cleared, waited = nil, nil, nil, false, false
  local headers, body, metadata, info, handle = {{}}, {{}}, {{}}, {{}}, {{}}
  function headers:get(name) return fields[name] end
  function headers:remove(name) fields[name] = nil end
  function headers:replace(name, value) fields[name] = value end
  function body:length() return #content end
  function body:getBytes(from, count)
    assert(from >= 0 and count > 0 and from + count <= #content)
    return string.sub(content, from + 1, from + count)
  end
  function metadata:set(namespace, key, value)
    assert(namespace == "{METADATA}" and key == "model")
    model = value
  end
  function info:dynamicMetadata() return metadata end
  function handle:headers() return headers end
  function handle:body() waited = true; if #content > 0 then return body end end
  function handle:streamInfo() return info end
  function handle:clearRouteCache() cleared = true end
  function handle:respond(fields, text) status, answer = fields[":status"], text end
  envoy_on_request(handle)
  return status, answer, fields["{HEADER}"], model, cleared, waited
end
"""


def runtime() -> Any:
    """Return an interpreter of Lua 5.1 that has loaded the script. Without the package `lupa` the test is skipped."""
    try:
        from lupa import lua51
    except ImportError:
        missing("the package `lupa` is not installed: the script of body gateways is not run without an Envoy")
    lua = lua51.LuaRuntime(encoding=None)
    lua.execute((script(HEADER) + _STAND_INS).encode())
    return lua


@dataclass
class Result:
    """The result of the script for one request."""

    answer: tuple[int, bytes] | None  # the script's own answer
    header: str
    model: str | None  # in the metadata
    cleared: bool  # the route is looked up again
    waited: bool  # the script asked for the body


def run(
    lua: Any, body: bytes | str, kind: str = "application/json", path: str = "/v1/chat", method: str = "POST", **more: str
) -> Result:
    """Run the script for a request. `more` are headers."""
    fields = {":method": method, ":path": path, "content-type": kind, HEADER: f"edge|{START}", **more}
    headers = lua.table_from({name.encode(): value.encode() for name, value in fields.items() if value})
    content = body.encode() if isinstance(body, str) else body
    status, answer, header, model, cleared, waited = lua.globals()[b"run_request"](headers, content)
    answered = (int(status), answer) if status else None
    return Result(answered, header.decode(), model.decode() if model else None, cleared, waited)
