"""The Lua script of a version that rewrites the path of its requests, or the name of the model in their bodies.

Envoy has no other filter that can do either in a cluster: `header_mutation` does not change the path, and the other filters
that change bodies are no upstream filters, or need a server. A script costs memory: each thread of an Envoy has a Lua
interpreter of about 90 kB for each cluster with a script. So a version without these settings has no script.

**Retries.** Envoy keeps the headers of a request between its tries, with the changes that a script made. So the script keeps
the original path in the request's dynamic metadata, and each try rewrites that. Each try gets the original body.

**Bodies** are buffered, because `setBytes` sets the header content-length to the length of what it is called on. So it must
be called on the whole body, before the headers leave. The limit is that of the gateway's buffers; beyond it the client gets
413. The name is replaced where a body gateway looks for it (`body_script.py`):

    JSON             the value of each member `model` of the outermost object
    a form           the value of each field `model`
    the query        the value of each parameter `model`

A place that occurs twice is replaced twice, also if the name of a member has escapes: a client must not reach another model of
the server that way. Nothing is added where there is no name. Other bodies pass as they are, and so do compressed ones. The
script finds the values without building a table of the text, in about 3 ms for each megabyte.
"""

from __future__ import annotations

import json
import re

from controlplane.domain import PathRewrite, Version

# Characters that are escaped in strings of Lua; and in queries: all but the unreserved ones (RFC 3986, section 2.3).
_SPECIAL, _RESERVED = re.compile(r"[^A-Za-z0-9/:._~-]"), re.compile(r"[^A-Za-z0-9._~-]")


def script(version: Version) -> str:
    """Return the script of a version; "" if it needs none."""
    rewrite, model = version.rewrite, version.upstream_model
    if rewrite is None and not model:
        return ""
    parts = []
    if rewrite is not None:
        parts.append(f"local PREFIX, REPLACEMENT, FOLLOWING = {_rewrite(rewrite)}\n{_REWRITTEN}")
    if model:
        forms = (json.dumps(model), model, _RESERVED.sub(lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), model))
        parts.append(f"local IN_JSON, IN_FORM, IN_QUERY = {', '.join(map(_text, forms))}\n{_MODEL_VALUES}{_FORM_VALUES}")
    parts.append(_ON_REQUEST)
    parts += [_PATH_STEP] if rewrite is not None else []
    parts += [_QUERY_STEP] if model else []
    parts.append(_NEW_PATH)
    parts += [_BODY_STEP] if model else []
    return "\n".join(("", *parts))[1:] + "end\n"


def _rewrite(rewrite: PathRewrite) -> str:
    """Return the prefix, the replacement, and the characters that may follow the prefix. `rewrites.py` has the rules."""
    prefix, replacement = rewrite.prefix.removesuffix("/"), rewrite.replacement.removesuffix("/")
    following = "/" if rewrite.prefix.endswith("/") else "/:"
    if rewrite.prefix.endswith(":"):
        prefix, replacement, following = prefix[:-1], rewrite.replacement or "/", ":"
    return ", ".join(_text(text) for text in (prefix, replacement, following))


def _text(text: str) -> str:
    """Return a text as a string of Lua. All bytes but letters, digits and `/:._~-` are escaped."""
    return '"' + _SPECIAL.sub(lambda match: "".join(f"\\{b:03}" for b in match[0].encode()), text) + '"'


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

_ON_REQUEST = """\
function envoy_on_request(handle)
  local headers, metadata = handle:headers(), handle:streamInfo():dynamicMetadata()
  local earlier = metadata:get("turnout.upstream")
  local path = earlier and earlier.path or headers:get(":path")
  if not earlier then metadata:set("turnout.upstream", "path", path) end
"""

_PATH_STEP = """\
  path = rewritten(path)
"""

# Envoy itself keeps the client's path under this name when a route rewrites the path. Access logs show it.
_NEW_PATH = """\
  if path ~= headers:get(":path") then
    if not headers:get("x-envoy-original-path") then headers:add("x-envoy-original-path", headers:get(":path")) end
    headers:replace(":path", path)
  end
"""

_QUERY_STEP = """\
  path = path:gsub("([?&]model=)[^&]*", function(name) return name .. IN_QUERY end)
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

_FORM_VALUES = r"""
-- Return the places of the values of all fields `model` of a form, as `model_values` does.
local function form_values(body, length, boundary)
  local places, delimiter = {}, "--" .. boundary

  local function offset_of(text, from)
    while from < length do
      local window = body:getBytes(from, math.min(SLICE, length - from))
      local at = window:find(text, 1, true)
      if at then return from + at - 1 end
      from = from + (#window < SLICE and length or SLICE - #text + 1)
    end
  end

  local at = offset_of(delimiter, 0)
  for _ = 1, 128 do
    local head_end = at and offset_of("\r\n\r\n", at)
    if not head_end or head_end - at > 4096 then return places end
    local head = body:getBytes(at, head_end + 2 - at):lower()
    local stop = offset_of("\r\n" .. delimiter, head_end + 2)
    if not stop then return places end
    local disposition = head:match("\r\ncontent%-disposition:([^\r]*)\r")
    if disposition and (disposition .. ";"):match(';%s*name="?model"?%s*;') and stop >= head_end + 4 then
      places[#places + 1] = {head_end + 4, stop}
    end
    at = stop + 2
  end
  return places
end
"""

_BODY_STEP = r"""
  local method = headers:get(":method")
  -- A WebSocket begins with GET, and its messages are no body that ends.
  if method ~= "POST" and method ~= "PUT" and method ~= "PATCH" or headers:get("content-encoding") then return end
  local content_type = headers:get("content-type") or ""
  local kind, boundary = content_type:lower(), nil
  if kind:find("^multipart/form%-data") and not path:find("^[^?]*/files$") and not path:find("^[^?]*/parts$") then
    boundary = content_type:match('[Bb][Oo][Uu][Nn][Dd][Aa][Rr][Yy]="?([^";,%s]+)')
  end
  local is_json = kind == "" or kind:find("json", 1, true) or kind:find("^text/plain")
    or kind:find("^application/x%-www%-form%-urlencoded")
  if not boundary and not is_json then return end
  local body = handle:body()
  if not body then return end
  local length, places = body:length(), nil
  if boundary then
    places = form_values(body, length, boundary)
  else
    places = model_values(function(from, size) return body:getBytes(from, size) end, length)
  end
  if #places == 0 then return end
  local parts, from = {}, 0
  for _, place in ipairs(places) do
    parts[#parts + 1] = body:getBytes(from, place[1] - from)
    parts[#parts + 1] = boundary and IN_FORM or IN_JSON
    from = place[2]
  end
  parts[#parts + 1] = body:getBytes(from, length - from)
  body:setBytes(table.concat(parts))
  -- The copies of a large body must not wait until Lua collects them by itself.
  parts = nil
  if length > 1048576 then collectgarbage() end
"""
