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
    """Return the prefix, the replacement, and the characters that may follow the prefix. `rewrites.py` has the rules."""
    prefix, replacement = rewrite.prefix.removesuffix("/"), rewrite.replacement.removesuffix("/")
    following = "/" if rewrite.prefix.endswith("/") else "/:"
    if rewrite.prefix.endswith(":"):
        prefix, replacement, following = prefix[:-1], rewrite.replacement or "/", ":"
    return ", ".join(_text(text) for text in (prefix, replacement, following))


def _text(text: str) -> str:
    """Return a text as a string of Lua. Bytes that are not letters, digits or simple punctuation are escaped."""
    return '"' + "".join(chr(b) if chr(b).isalnum() or chr(b) in "/._:~-" else f"\\{b:03}" for b in text.encode()) + '"'


_PATH = """\
local PREFIX, REPLACEMENT, FOLLOWING = {rewrite}

-- Return the character at a position, the same for each of its forms, and the position after it.
local function character(text, at)
  local hex = text:match("^%%(%x%x)", at)
  if not hex then return text:sub(at, at), at + 1 end
  local decoded = string.char(tonumber(hex, 16))
  return decoded:find("^[:@+]") and decoded or hex:upper(), at + 3
end

-- Return the path after the prefix; nil if the path does not begin with it.
local function remainder(path)
  local i, at = 1, 1
  while i <= #PREFIX do
    local expected, actual
    expected, i = character(PREFIX, i)
    actual, at = character(path, at)
    if expected ~= actual then return nil end
  end
  return path:sub(at)
end

local function rewritten(path)
  local plain, query = path:match("^([^?]*)(.*)")
  local rest = remainder(plain)
  if not rest or not FOLLOWING:find(rest:sub(1, 1), 1, true) then return path end
  if FOLLOWING == ":" then return rest == "" and path or REPLACEMENT .. rest:sub(2) .. query end
  if REPLACEMENT == "" and rest:sub(1, 1) ~= "/" then rest = "/" .. rest end
  return REPLACEMENT .. rest .. query
end

function envoy_on_request(handle)
  local headers, metadata = handle:headers(), handle:streamInfo():dynamicMetadata()
  local earlier = metadata:get("turnout")
  local path = earlier and earlier.path or headers:get(":path")
  if not earlier then metadata:set("turnout", "path", path) end
  headers:replace(":path", rewritten(path))
end
"""
