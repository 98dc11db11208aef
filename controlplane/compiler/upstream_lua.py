"""The Lua script of a version that rewrites paths. Envoy has no other upstream filter that can change the path or the body.

Envoy keeps the headers of a request between its tries. So the script remembers the original path as dynamic metadata of the
request, and each try rewrites that.
"""

from __future__ import annotations

from controlplane.domain import PathRewrite, Version


def script(version: Version) -> str:
    """Return the script of a version; "" if it needs none."""
    if version.rewrite is None:
        return ""
    return _PATH.format(rewrite=_rewrite(version.rewrite))


def _rewrite(rewrite: PathRewrite) -> str:
    return f"{_text(rewrite.prefix)}, {_text(rewrite.replacement)}"


def _text(text: str) -> str:
    """Return a text as a string of Lua. Bytes that are not letters, digits or simple punctuation are escaped."""
    return '"' + "".join(chr(b) if chr(b).isalnum() or chr(b) in "/._:~-" else f"\\{b:03}" for b in text.encode()) + '"'


_PATH = """\
local PREFIX, REPLACEMENT = {rewrite}

local function rewritten(path)
  local plain = path:match("^[^?#]*")
  if plain:sub(1, #PREFIX) ~= PREFIX then return path end
  local following = plain:sub(#PREFIX + 1, #PREFIX + 1)
  if not PREFIX:find("[/:]$") and not following:find("^[/:]?$") then return path end
  return REPLACEMENT .. path:sub(#PREFIX + 1)
end

function envoy_on_request(handle)
  local headers, metadata = handle:headers(), handle:streamInfo():dynamicMetadata()
  local earlier = metadata:get("turnout")
  local path = earlier and earlier.path or headers:get(":path")
  if not earlier then metadata:set("turnout", "path", path) end
  headers:replace(":path", rewritten(path))
end
"""
