"""The Lua script of a version that rewrites the path of its requests, or the name of the model in their bodies.

Envoy has no other filter that can do either in a cluster: `header_mutation` does not change the path, and the other filters
that change bodies are no upstream filters, or need a server. A script costs memory: each thread of an Envoy has a Lua
interpreter of about 90 kB for each cluster with a script. So a version without these settings has no script.

**Retries.** Envoy keeps the headers of a request between its tries, with the changes that a script made. So the script keeps
the original path in the request's dynamic metadata, and each try rewrites that. Each try gets the original body.

**Bodies** are buffered, because `setBytes` sets the header content-length to the length of what it is called on. So it must
be called on the whole body, before the headers leave. The limit is that of the gateway's buffers; beyond it the client gets
413. The script finds the values without parsing the text into a table. It replaces the value of each member `model` at the top
level, also if the member's name has escapes or occurs twice: a client must not reach another model of the server that way.
Bodies that are no JSON objects pass as they are, and so do compressed ones.
"""

from __future__ import annotations

import json
import string

from controlplane.domain import PathRewrite, Version


def script(version: Version) -> str:
    """Return the script of a version; "" if it needs none."""
    rewrite, model = version.rewrite, version.upstream_model
    if rewrite is None and not model:
        return ""
    parts = []
    if rewrite is not None:
        parts.append(f"local PREFIX, REPLACEMENT, FOLLOWING = {_rewrite(rewrite)}\n{_REWRITTEN}")
    if model:
        parts.append(f"local MODEL = {_text(json.dumps(model))}\n{_MODEL_VALUES}")
    parts.append("function envoy_on_request(handle)\n  local headers = handle:headers()\n")
    parts += [_PATH_STEP] if rewrite is not None else []
    parts += [_BODY_STEP] if model else []
    return "".join(parts) + "end\n"


def _rewrite(rewrite: PathRewrite) -> str:
    """Return the prefix, the replacement, and the characters that may follow the prefix. `rewrites.py` has the rules."""
    prefix, replacement = rewrite.prefix.removesuffix("/"), rewrite.replacement.removesuffix("/")
    following = "/" if rewrite.prefix.endswith("/") else "/:"
    if rewrite.prefix.endswith(":"):
        prefix, replacement, following = prefix[:-1], rewrite.replacement or "/", ":"
    return ", ".join(_text(text) for text in (prefix, replacement, following))


def _text(text: str) -> str:
    """Return a text as a string of Lua. Bytes that are not letters, digits or simple punctuation are escaped."""
    plain = frozenset(string.ascii_letters + string.digits + "/._:~-")
    return '"' + "".join(chr(b) if chr(b) in plain else f"\\{b:03}" for b in text.encode()) + '"'


_REWRITTEN = """
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
"""

_PATH_STEP = """\
  local metadata = handle:streamInfo():dynamicMetadata()
  local earlier = metadata:get("turnout")
  local path = earlier and earlier.path or headers:get(":path")
  if not earlier then metadata:set("turnout", "path", path) end
  headers:replace(":path", rewritten(path))
"""

# The states of the JSON text: before the object (start), before a member's name (member), in the name (key), before the colon,
# before the value, in a value that is a string, an object or array (nested) or a scalar, and after a value.
_MODEL_VALUES = r"""
local SLICE, DELIMITERS = 65536, {'"', "{", "}", "[", "]"}

-- Return the places of the values of all members `model` of a JSON object, as pairs of the first byte and the byte after the
-- last, counted from 0. `bytes(from, size)` returns a part of the text. Values of an unfinished text have no place.
local function model_values(bytes, length)
  local state, depth, key, escaped, first, places = "start", 0, "", false, nil, {}
  for offset = 0, length - 1, SLICE do
    local text, at, found = bytes(offset, math.min(SLICE, length - offset)), 1, {}

    -- Return the place of the next character that matters inside an object or array; one after the end if there is none.
    local function delimiter()
      local nearest = #text + 1
      for i = 1, 5 do
        local c = DELIMITERS[i]
        if not found[c] or found[c] < at then found[c] = text:find(c, at, true) or #text + 1 end
        if found[c] < nearest then nearest = found[c] end
      end
      return nearest
    end

    while at <= #text do
      if state == "string" or state == "key" then
        local quote = text:find('"', at, true)
        local stop, escapes = (quote or #text + 1) - 1, 0
        while stop - escapes >= at and text:byte(stop - escapes) == 92 do escapes = escapes + 1 end
        if stop - escapes < at and escaped then escapes = escapes + 1 end
        if state == "key" and #key < 64 then key = key .. text:sub(at, math.min(stop + 1, at + 64)) end
        escaped = escapes % 2 == 1
        at = stop + 2
        if quote and not escaped then state = state == "key" and "colon" or depth == 1 and "after" or "nested" end
        if quote then escaped = false end
      elseif state == "nested" then
        local place = delimiter()
        local byte = text:byte(place)
        at = place + 1
        if byte == 34 then state = "string"
        elseif byte == 123 or byte == 91 then depth = depth + 1
        elseif byte then
          depth = depth - 1
          if depth == 1 then state = "after" end
        end
      elseif state == "scalar" then
        at = text:find("[,}%s]", at) or #text + 1
        if at <= #text then state = "after" end
      else
        local place = text:find("[^%s\239\187\191]", at)
        if not place then break end
        local byte = text:byte(place)
        at = place + 1
        if state == "start" and byte == 123 then state, depth = "member", 1
        elseif state == "member" and byte == 34 then state, key = "key", ""
        elseif state == "colon" and byte == 58 then state = "value"
        elseif state == "value" then
          key = key:gsub("\\u00(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
          if key == 'model"' then first = offset + place - 1 end
          if byte == 34 then state = "string"
          elseif byte == 123 or byte == 91 then state, depth = "nested", 2
          else state, at = "scalar", place end
        elseif state == "after" and (byte == 44 or byte == 125) then
          if first then places[#places + 1] = {first, offset + place - 1} end
          first = nil
          if byte == 125 then return places end
          state = "member"
        else
          return places
        end
      end
    end
  end
  return places
end
"""

_BODY_STEP = """\
  local kind = (headers:get("content-type") or ""):lower()
  if headers:get("content-encoding") or not kind:find("^%s*application/[^;]*json%s*;?") then return end
  local body = handle:body()
  if not body then return end
  local length = body:length()
  local places = model_values(function(from, size) return body:getBytes(from, size) end, length)
  if #places == 0 then return end
  local parts, from = {}, 0
  for _, place in ipairs(places) do
    parts[#parts + 1] = body:getBytes(from, place[1] - from)
    parts[#parts + 1] = MODEL
    from = place[2]
  end
  parts[#parts + 1] = body:getBytes(from, length - from)
  body:setBytes(table.concat(parts))
  -- The copies of a large body must not wait until Lua collects them by itself.
  parts = nil
  if length > 1048576 then collectgarbage() end
"""
