"""The script in Lua by which a body gateway finds the name of the model. Envoy runs it for each request, before the route.

It reads the name, and writes it into the header by which the scope is looked up (`body_routing.py`):

    a body in JSON               the member `model` of the outermost object; the last one if there are several, as parsers do
    a form, `multipart/…`        the field `model`; the first one
    gRPC                         the field of the first message that `grpc_models.py` names
    the query                    the parameter `model`, if the body names none
    none of these                `NO_MODEL`, whose scope leads to the default model, or to an error

Envoy's own filter `json_to_metadata` finds the name in JSON, too. It is not used, because it builds a tree of the whole body:
that takes 8 to 100 times the body's size and up to 150 ms of CPU for each megabyte, and Envoy 1.36 crashes at a body that is
nested a million times. The script looks at the body in windows and keeps nothing but the name. It takes 3 to 25 ms of CPU for
each megabyte.

A name that no model can have (`checks.MODEL_NAME`) never gets into a header, so a body can't add lines to the request.
"""

from __future__ import annotations

from controlplane.compiler.grpc_models import HEADER

# Values that may follow the separator in the header, beside names of models, which never contain an asterisk.
START, NO_MODEL, IMPOSSIBLE = "*", "*default", "*impossible"
SEPARATOR = "|"

# The methods of requests whose body is read.
METHODS = ("POST", "PUT", "PATCH")

# The end of the path of OpenAI's and Anthropic's lists of models. Before it there may be `/v1`.
LIST = "/models"

# The namespace of the dynamic metadata that holds the name under `model`, for replies and access logs.
METADATA = "turnout.request"


def script(header: str) -> str:
    """Return the script. `header` is the header whose value is the gateway's scope, a separator and the name of the model."""
    names = {
        "@HEADER@": header,
        "@SEPARATOR@": SEPARATOR,
        "@NO_MODEL@": NO_MODEL,
        "@IMPOSSIBLE@": IMPOSSIBLE,
        "@METADATA@": METADATA,
        "@LIST@": LIST,
        "@METHODS@": " or ".join(f'method == "{method}"' for method in METHODS),
        "@GRPC_HEADER@": HEADER,
    }
    text = _SCRIPT
    for name, value in names.items():
        text = text.replace(name, value)
    return text


_SCRIPT = r"""
local WINDOW = 65536      -- bytes of the body that are looked at at once
local MAX_NAME = 253      -- characters of a name
local MAX_TOKEN = 2048    -- bytes of a string that may be the name, before its escapes are resolved
local MAX_PARTS = 128     -- parts of a form that are looked at
local MAX_HEAD = 4096     -- bytes of the headers of a part
local byte, char, find, gsub, lower, match, sub =
  string.byte, string.char, string.find, string.gsub, string.lower, string.match, string.sub
local ESCAPES = {b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

-- Return bytes of the body; fewer at its end.
local function bytes(body, from, count)
  local left = body:length() - from
  if left <= 0 then return "" end
  return body:getBytes(from, left < count and left or count)
end

-- Return the text that a string in JSON stands for. Escaped characters outside ASCII become '?': no name has them.
local function unescaped(text)
  if not find(text, "\\", 1, true) then return text end
  return (gsub(text, "\\(.)(%x?%x?%x?%x?)", function(kind, digits)
    if kind ~= "u" then return (ESCAPES[kind] or kind) .. digits end
    local code = #digits == 4 and tonumber(digits, 16)
    return code and code < 128 and char(code) or "?"
  end))
end

-- Return the member `model` of the outermost object: nil if there is none or it is null, false if it is no string.
local function model_of_json(body)
  local model, depth, is_object = nil, 0, false
  local in_string, escaped = false, false
  local at_key, at_value = false, false   -- a key of the outermost object comes next; the value of `model` comes next
  local token = nil                       -- the string so far, if it is such a key or value
  local offset, size = 0, body:length()
  while offset < size do
    local text = bytes(body, offset, WINDOW)
    local length, start, i = #text, 1, 1
    while i <= length do
      local c = byte(text, i)
      if in_string then
        if escaped then
          escaped = false
        elseif c == 92 then                                      -- \
          escaped = true
        elseif c == 34 then                                      -- "
          in_string = false
          if token then
            token = unescaped(token .. sub(text, start, i - 1))
            if at_key then
              at_key, at_value = false, token == "model"
            else
              model, at_value = token, false
            end
            token = nil
          end
        end
      elseif c == 34 then                                        -- "
        in_string = true
        if depth == 1 and (at_key or at_value) then token, start = "", i + 1 end
      elseif c == 123 or c == 91 then                            -- { [
        if depth == 1 and at_value then model, at_value = false, false end
        depth = depth + 1
        if depth == 1 then is_object = c == 123 end
        at_key = depth == 1 and is_object
      elseif c == 125 or c == 93 then                            -- } ]
        depth = depth - 1
      elseif c == 44 then                                        -- ,
        if depth == 1 then at_key, at_value = is_object, false end
      elseif at_value and depth == 1 and c > 32 and c ~= 58 then -- a number, true, false or null; 58 is a colon
        if c == 110 then model = nil else model = false end
        at_value = false
      end
      i = i + 1
    end
    if token then token = sub(token .. sub(text, start), 1, MAX_TOKEN) end
    offset = offset + length
  end
  return model
end

-- Return the offset of a text in the body, nil if it is not there.
local function offset_of(body, text, from)
  while true do
    local window = bytes(body, from, WINDOW)
    local at = find(window, text, 1, true)
    if at then return from + at - 1 end
    if #window < WINDOW then return nil end
    from = from + WINDOW - #text + 1
  end
end

-- Return the field `model` of a form, nil if there is none.
local function model_of_form(body, boundary)
  local delimiter = "--" .. boundary
  local at = offset_of(body, delimiter, 0)
  for _ = 1, MAX_PARTS do
    if not at then return nil end
    local from = at + #delimiter
    local head = lower(bytes(body, from, MAX_HEAD))
    local stop = find(head, "\r\n\r\n", 1, true)
    if not stop then return nil end
    local content = from + stop + 3
    local disposition = match(sub(head, 1, stop) .. "\r", "\r\ncontent%-disposition:([^\r]*)\r")
    if disposition and match(disposition .. ";", ';%s*name="?model"?%s*;') then
      local value = bytes(body, content, MAX_TOKEN)
      local last = find(value, "\r\n" .. delimiter, 1, true)
      return sub(value, 1, (last or #value + 1) - 1)
    end
    at = offset_of(body, "\r\n" .. delimiter, content)
    if at then at = at + 2 end
  end
  return nil
end

local function model_of_query(query)
  local value = match("&" .. query, "&model=([^&]*)")
  return value and (gsub(value, "%%(%x%x)", function(digits) return char(tonumber(digits, 16)) end))
end

-- Return the name in the first message of a gRPC call, nil if there is none. Filters in front of this one have read it.
-- A name with characters that JSON escapes is none of a model.
local function model_of_grpc(headers)
  local list = headers:get("@GRPC_HEADER@")
  return list and match(list, '^%["(.*)"%]$')
end

-- Answer a request with an error, as the client's API writes errors.
local function refuse(handle, status, path, message)
  local error = '{"type":"invalid_request_error","code":null,"param":"model","message":"' .. message .. '"}'
  local body = '{"type":"error","error":' .. error .. '}'
  if sub(path, 1, 5) == "/api/" then body = '{"error":"' .. message .. '"}' end
  handle:respond({[":status"] = status, ["content-type"] = "application/json"}, body)
end

local function lists_models(path)
  local rest = match(path, "^/v1@LIST@(.*)") or match(path, "^@LIST@(/?)$")
  return rest and match(rest, "^/?") == sub(rest, 1, 1) or path == "/api/tags"
end

-- Return true if a body of this type can name a model. Ollama's clients send JSON with other types, and without one.
local function may_be_json(content_type)
  return content_type == "" or find(content_type, "json", 1, true) or match(content_type, "^text/plain")
    or match(content_type, "^application/x%-www%-form%-urlencoded")
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local method, target, content_type = headers:get(":method"), headers:get(":path") or "", headers:get("content-type") or ""
  local scope = match(headers:get("@HEADER@") or "", "^[^@SEPARATOR@]*")
  local path, query = match(target, "^([^?]*)%??(.*)$")
  if (method == "GET" or method == "HEAD") and lists_models(path) then return end
  local kind, boundary = lower(content_type), nil
  -- A part of a file's upload names no model, and may be larger than Envoy's buffer.
  if match(kind, "^multipart/form%-data") and not match(path, "/files$") and not match(path, "/parts$") then
    boundary = match(content_type, '[Bb][Oo][Uu][Nn][Dd][Aa][Rr][Yy]="?([^";,%s]+)')
  end
  local model = nil
  -- A WebSocket begins with GET, and its messages are no body that ends.
  if (@METHODS@) and (boundary or may_be_json(kind)) then
    local encoding = headers:get("content-encoding") or "identity"
    if encoding ~= "" and lower(encoding) ~= "identity" then
      return refuse(handle, "415", path, "The gateway can't read a compressed body. Send it without Content-Encoding.")
    end
    local body = handle:body()
    if body and boundary then model = model_of_form(body, boundary) elseif body then model = model_of_json(body) end
    if model == false then
      return refuse(handle, "400", path, "The field model must be a string with the name of a model.")
    end
  end
  if match(kind, "^application/grpc") then model = model_of_grpc(headers) end
  if model == nil or model == "" then model = model_of_query(query) end
  local found = "@NO_MODEL@"
  if model and model ~= "" then
    found = #model <= MAX_NAME and match(model, "^[%w._~@+:/-]+$") or "@IMPOSSIBLE@"
    handle:streamInfo():dynamicMetadata():set("@METADATA@", "model", (gsub(sub(model, 1, MAX_NAME), "[^ -~]", "?")))
  end
  -- After `body()` the earlier object is not valid any more.
  handle:headers():remove("@GRPC_HEADER@")
  handle:headers():replace("@HEADER@", scope .. "@SEPARATOR@" .. found)
  handle:clearRouteCache()
end
"""
