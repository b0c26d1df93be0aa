-- What Envoy's scripts find: handles with methods. `host(question, ...)` answers at once; what takes time is asked by yielding.

local ask, yield = host, coroutine.yield
local raise, kind, set, pairs_of, text = error, type, setmetatable, pairs, tostring

local function call(...)
  local well, answer = ask(...)
  if not well then raise(answer, 3) end
  return answer
end

-- The answer to something that takes time: nil and an error, or what is asked for.
local function wait(...)
  local answer, failed = yield(...)
  if answer == nil and failed then raise(failed, 3) end
  return answer, failed
end

local function class(methods, more)
  local meta = more or {}
  meta.__index = methods
  return meta
end

-- Iterates over a copy, so that what is changed meanwhile is not seen.
local function entries(list)
  local at = 0
  return function()
    at = at + 1
    local entry = list[at]
    if entry then return entry[1], entry[2] end
  end
end

-- What is not there is no value at all, not even nil: `tostring` of it is an error, in Envoy as well.
local function found(value)
  if value ~= nil then return value end
end

-- Headers, body and trailers do not survive waiting, as in Envoy: the handle has them anew afterwards.
local function over(handle)
  handle._scope.dead = true
  handle._scope, handle._headers = {}, nil
end

local function live(object)
  if object.scope.dead then raise("object used outside of proper scope", 3) end
  return object.part
end

-- The same for what changes headers, which have gone on when the body or its trailers passed by.
local function open(object)
  if object.scope.dead then raise("object used outside of proper scope", 3) end
  if object.handle and object.handle._gone_on then raise("header map can no longer be modified", 3) end
  return object.part
end

local Headers = class({
  get = function(self, name) return found(call("get", live(self), name)) end,
  getAtIndex = function(self, name, index) return found(call("get_at", live(self), name, index)) end,
  getNumValues = function(self, name) return call("count", live(self), name) end,
  add = function(self, name, value) call("add", open(self), name, value) end,
  remove = function(self, name) call("remove", open(self), name) end,
  replace = function(self, name, value) call("replace", open(self), name, value) end,
  setHttp1ReasonPhrase = function() raise("setHttp1ReasonPhrase() is not supported by this proxy", 2) end,
}, { __pairs = function(self) return entries(call("list", live(self))) end })

local Body = class({
  length = function(self) live(self) return #self.bytes end,
  getBytes = function(self, index, length)
    live(self)
    if index < 0 or length < 0 or index + length > #self.bytes then
      raise("index/length must be >= 0 and (index + length) must be <= buffer size", 2)
    end
    return self.bytes:sub(index + 1, index + length)
  end,
  setBytes = function(self, bytes)
    live(self)
    bytes = text(bytes)
    call("set_body", bytes)
    self.bytes = bytes
    return #bytes
  end,
})

-- A table of values that can be asked for by name.
local function map(values)
  return set({}, {
    __index = { get = function(_, name) return found(values[name]) end },
    __pairs = function() return pairs_of(values) end,
  })
end

local DynamicMetadata = class({
  get = function(_, filter) return found(call("metadata", filter)) end,
  set = function(_, filter, key, value) call("set_metadata", filter, key, value) end,
}, { __pairs = function() return pairs_of(call("all_metadata")) end })

local Ssl = class({
  peerCertificatePresented = function(self) return self.peer end,
  peerCertificateValidated = function(self) return self.peer end,
  uriSanLocalCertificate = function(self) return self.local_uris end,
  uriSanPeerCertificate = function(self) return self.peer_uris end,
  dnsSansLocalCertificate = function(self) return self.local_dns end,
  dnsSansPeerCertificate = function(self) return self.peer_dns end,
  subjectLocalCertificate = function(self) return self.local_subject end,
  subjectPeerCertificate = function(self) return self.peer_subject end,
  issuerPeerCertificate = function(self) return self.peer_issuer end,
  serialNumberPeerCertificate = function(self) return self.peer_serial end,
  sha256PeerCertificateDigest = function(self) return self.peer_digest end,
  urlEncodedPemEncodedPeerCertificate = function(self) return self.peer_pem end,
  ciphersuiteString = function(self) return self.cipher end,
  tlsVersion = function(self) return self.version end,
})

local function ssl()
  local session = call("ssl")
  return session and set(session, Ssl) or nil
end

local function fact(name)
  return function() return call("stream", name) end
end

local StreamInfo = class({
  protocol = fact("protocol"),
  routeName = fact("route"),
  virtualClusterName = fact("virtual_cluster"),
  downstreamLocalAddress = fact("local"),
  downstreamDirectLocalAddress = fact("local"),
  downstreamRemoteAddress = fact("remote"),
  downstreamDirectRemoteAddress = fact("direct_remote"),
  requestedServerName = fact("server_name"),
  drainConnectionUponCompletion = function() call("drain") end,
  dynamicMetadata = function() return set({}, DynamicMetadata) end,
  downstreamSslConnection = function() return ssl() end,
})

local Connection = class({ ssl = function() return ssl() end })

local function log(level)
  return function(_, message) call("log", level, text(message)) end
end

local methods = {
  headers = function(self)
    local all = self._headers
    if not all then
      all = set({ part = "headers", scope = self._scope, handle = self }, Headers)
      self._headers = all
    end
    return all
  end,
  body = function(self, always)
    local bytes = wait("body")
    if bytes == nil then
      if not always then return nil end
      call("chunked")
    elseif not self._read then
      self._read = true
      over(self)
    end
    return set({ bytes = bytes or "", scope = self._scope }, Body)
  end,
  bodyChunks = function(self)
    local done = false
    return function()
      if done then return nil end
      done = true
      local bytes = wait("body")
      if bytes == nil then return nil end
      self._read, self._gone_on = true, true
      over(self)
      return set({ bytes = bytes, scope = self._scope }, Body)
    end
  end,
  trailers = function(self)
    local body, trailers = wait("trailers")
    if body and not self._read then
      self._read, self._gone_on = true, true
      over(self)
    end
    return trailers and set({ part = "trailers", scope = self._scope }, Headers) or nil
  end,
  metadata = function() return map(call("route_metadata")) end,
  filterContext = function() return map(call("filter_context")) end,
  streamInfo = function() return set({}, StreamInfo) end,
  connection = function() return set({}, Connection) end,
  logTrace = log("trace"),
  logDebug = log("debug"),
  logInfo = log("info"),
  logWarn = log("warn"),
  logErr = log("error"),
  logCritical = log("critical"),
  base64Escape = function(_, bytes) return call("base64", bytes) end,
  timestamp = function(_, unit) return call("timestamp", unit) end,
  timestampString = function(_, unit) return call("timestamp_text", unit) end,
  clearRouteCache = function() call("clear_route_cache") end,
  httpCall = function(self, cluster, headers, body, timeout, options)
    local apart, flat = options, false
    if kind(options) == "table" then
      apart, flat = options.asynchronous, false
      flat = options.return_duplicate_headers
    end
    if apart then
      call("http_call_apart", cluster, headers, body, timeout)
      return
    end
    local answer = wait("http_call", cluster, headers, body, timeout, flat)
    over(self)
    return answer.headers, answer.body
  end,
  respond = function(_, headers, body)
    call("respond", headers, body)
    yield("end")
  end,
}

for _, name in pairs_of({ "importPublicKey", "verifySignature", "setUpstreamOverrideHost", "connectionStreamInfo", "virtualHost", "route" }) do
  methods[name] = function() raise(name .. "() is not supported by this proxy", 2) end
end

local Handle = class(methods)

local function handle()
  return set({ _scope = {} }, Handle)
end

-- What LuaJIT has and Lua 5.2 calls otherwise.
unpack = table.unpack
loadstring = load
table.getn = function(list) return #list end
bit = {
  band = function(...) local n = bit32.band(...) return n >= 2147483648 and n - 4294967296 or n end,
  bor = function(...) local n = bit32.bor(...) return n >= 2147483648 and n - 4294967296 or n end,
  bxor = function(...) local n = bit32.bxor(...) return n >= 2147483648 and n - 4294967296 or n end,
  bnot = function(a) local n = bit32.bnot(a) return n >= 2147483648 and n - 4294967296 or n end,
  lshift = function(a, by) local n = bit32.lshift(a, by % 32) return n >= 2147483648 and n - 4294967296 or n end,
  rshift = function(a, by) local n = bit32.rshift(a, by % 32) return n >= 2147483648 and n - 4294967296 or n end,
  arshift = function(a, by) local n = bit32.arshift(a, by % 32) return n >= 2147483648 and n - 4294967296 or n end,
  tohex = function(a) return ("%08x"):format(bit32.band(a, 0xffffffff)) end,
}
EnvoyTimestampResolution = { MILLISECOND = 0, MICROSECOND = 1 }

function __theater_request() return envoy_on_request(handle()) end
function __theater_response() return envoy_on_response(handle()) end
