//! What scripts are answered at once.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use dataplane::ResponseFlags;
use dataplane::lists::{self, Direction};
use dataplane::local_reply::{self, LocalReply};
use dataplane::stream::Certificate;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use lua::{Host, Value};

use super::Call;
use crate::body::{Body, Frame, Replay};
use crate::http::connection::{Answer, Connection};
use crate::http::record::Record;
use crate::http::respond::Making;

/// What a script sees: a request, or an answer with its request.
pub struct Side<'a> {
    pub conn: &'a Rc<Connection>,
    pub record: &'a mut Record,
    /// The answer; none while it is about the request.
    pub making: Option<&'a mut Making>,
    /// Trailers, once the body was read.
    pub trailers: Option<HeaderMap>,
    /// An answer of the script's own.
    pub answer: Option<Answer>,
    /// Headers were changed.
    pub changed: bool,
    pub clear_route_cache: bool,
    /// The connection is to be closed.
    pub close: bool,
    /// The filter's name in the configuration.
    name: &'a str,
    context: &'a Value,
}

impl<'a> Side<'a> {
    pub fn new(
        conn: &'a Rc<Connection>,
        record: &'a mut Record,
        name: &'a str,
        context: &'a Value,
    ) -> Self {
        Self {
            conn,
            record,
            making: None,
            trailers: None,
            answer: None,
            changed: false,
            clear_route_cache: false,
            close: false,
            name,
            context,
        }
    }

    fn headers(&mut self) -> &mut HeaderMap {
        match &mut self.making {
            Some(making) => &mut making.headers,
            None => &mut self.record.head.headers,
        }
    }

    /// All values of a header, of what stands apart from the others as well.
    fn values(&mut self, part: &str, name: &str) -> Vec<Value> {
        let name = name.to_ascii_lowercase();
        if part == "trailers" {
            let all = self.trailers.as_ref().map(|all| all.get_all(&name));
            return all.into_iter().flatten().map(Value::text).collect();
        }
        if name.starts_with(':') || name == "host" {
            let apart = self.apart();
            let name = if name == "host" {
                ":authority"
            } else {
                name.as_str()
            };
            let found = apart.into_iter().find(|(own, _)| *own == name);
            return found
                .map(|(_, value)| Value::text(value))
                .into_iter()
                .collect();
        }
        self.headers()
            .get_all(&name)
            .iter()
            .map(Value::text)
            .collect()
    }

    /// What stands apart from the other headers.
    fn apart(&self) -> Vec<(&'static str, String)> {
        if let Some(making) = &self.making {
            return vec![(":status", making.status.as_str().to_owned())];
        }
        let head = &self.record.head;
        let all = [
            (":authority", head.authority.clone()),
            (":path", head.path.clone()),
            (":method", head.method.to_string()),
            (":scheme", head.scheme.to_owned()),
        ];
        all.into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect()
    }

    fn change(&mut self, how: &str, part: &str, name: &str, value: &str) -> Result<(), String> {
        if part == "trailers" {
            return Err("trailers cannot be changed in this proxy".into());
        }
        self.changed = true;
        let name = name.to_ascii_lowercase();
        if name.starts_with(':') || name == "host" {
            return self.change_apart(how, &name, value);
        }
        if how == "remove" {
            self.headers().remove(&name);
            return Ok(());
        }
        if how == "replace" {
            self.headers().remove(&name);
        }
        let direction = match self.making {
            Some(_) => Direction::Response,
            None => Direction::Request,
        };
        append(self.headers(), &name, value, direction)
    }

    fn change_apart(&mut self, how: &str, name: &str, value: &str) -> Result<(), String> {
        let value = if how == "remove" { "" } else { value };
        if let Some(making) = &mut self.making {
            if name == ":status" {
                making.status = value
                    .parse()
                    .map_err(|_| format!(":status: {value:?} is no status"))?;
            }
            return Ok(());
        }
        let head = &mut self.record.head;
        match name {
            ":authority" | "host" => value.clone_into(&mut head.authority),
            ":path" => value.clone_into(&mut head.path),
            ":method" => {
                head.method = Method::try_from(value)
                    .map_err(|_| format!(":method: {value:?} is no method"))?;
            }
            ":scheme" => head.scheme = if value == "https" { "https" } else { "http" },
            _ => {}
        }
        Ok(())
    }

    fn set_body(&mut self, bytes: Bytes) {
        let length = bytes.len();
        match &mut self.making {
            Some(making) => {
                let trailers = self.trailers.clone().map(Frame::Trailers);
                let data = (!bytes.is_empty()).then_some(Frame::Data(bytes));
                let frames = data.into_iter().chain(trailers).collect();
                making.body = Body::Chained(frames, Box::new(Body::Empty));
            }
            None => match &self.record.replay {
                Some(replay) => replay.borrow_mut().replace(bytes),
                None => self.record.replay = Some(Replay::new(Body::full(bytes), 0)),
            },
        }
        let headers = self.headers();
        headers.insert(header::CONTENT_LENGTH, length.into());
    }

    fn respond(&mut self, arguments: &[Value]) -> Result<Value, String> {
        if self.making.is_some() {
            return Err("respond() not currently supported in the response path".into());
        }
        let mut status = None;
        let mut headers = HeaderMap::new();
        for (name, value) in headers_of(arguments.first())? {
            match name.as_str() {
                ":status" => status = value.parse::<u16>().ok(),
                name => append(&mut headers, name, &value, Direction::Response)?,
            }
        }
        let status = status
            .filter(|status| (200..600).contains(status))
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or(":status must be between 200-599")?;
        let body = match arguments.get(1) {
            Some(body) => body.as_text().unwrap_or_default().into_owned(),
            None => String::new(),
        };
        let reply = LocalReply {
            status: status.as_u16(),
            body: body.into(),
            flags: ResponseFlags::NONE,
            details: "lua_response".into(),
            ..local_reply::ROUTE_NOT_FOUND
        };
        self.answer = Some(Answer::Refused(reply, headers));
        Ok(Value::Nil)
    }

    fn stream(&self, name: &str) -> Value {
        let info = self.record.info();
        let text = |text: Option<&str>| Value::text(text.unwrap_or_default());
        match name {
            "protocol" => text(info.protocol),
            "route" => text(info.route_name),
            "virtual_cluster" => text(None),
            "local" => Value::text(info.connection.local.to_string()),
            "remote" => Value::text(info.remote().to_string()),
            "direct_remote" => Value::text(info.connection.remote.to_string()),
            "server_name" => text(info.connection.server_name.as_deref()),
            _ => Value::Nil,
        }
    }

    fn ssl(&self) -> Value {
        let Some(session) = self.conn.info.tls.as_deref() else {
            return Value::Nil;
        };
        let none = Certificate::default();
        let local = session.local.as_deref().unwrap_or(&none);
        let peer = session.peer.as_deref().unwrap_or(&none);
        let list = |all: &[String]| {
            let numbers = (1u32..).map(|index| Value::Number(index.into()));
            Value::Table(numbers.zip(all.iter().map(Value::text)).collect())
        };
        let fields = [
            ("peer", Value::Bool(session.peer.is_some())),
            ("local_uris", list(&local.uris)),
            ("peer_uris", list(&peer.uris)),
            ("local_dns", list(&local.dns)),
            ("peer_dns", list(&peer.dns)),
            ("local_subject", Value::text(&local.subject)),
            ("peer_subject", Value::text(&peer.subject)),
            ("peer_issuer", Value::text(&peer.issuer)),
            ("peer_serial", Value::text(&peer.serial)),
            ("peer_digest", Value::text(&peer.sha256)),
            ("peer_pem", Value::text(&peer.url_encoded_pem)),
            ("cipher", Value::text(&session.cipher)),
            ("version", Value::text(session.version)),
        ];
        let named = fields.map(|(name, value)| (Value::text(name), value));
        Value::Table(named.to_vec())
    }
}

impl Host for Side<'_> {
    fn call(&mut self, question: &str, arguments: Vec<Value>) -> Result<Value, String> {
        let text = |at: usize| {
            let value = arguments.get(at).and_then(Value::as_text);
            value.map(std::borrow::Cow::into_owned)
        };
        let needed =
            |at: usize| text(at).ok_or_else(|| format!("bad argument #{at} (string expected)"));
        let since = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
        };
        match question {
            "get" => {
                let values = self.values(&needed(0)?, &needed(1)?);
                let parts: Vec<_> = values.iter().filter_map(Value::as_text).collect();
                Ok(match parts.is_empty() {
                    true => Value::Nil,
                    false => Value::text(parts.join(",")),
                })
            }
            "get_at" => {
                let values = self.values(&needed(0)?, &needed(1)?);
                let at = match arguments.get(2) {
                    Some(Value::Number(at)) if *at >= 0.0 => *at as usize,
                    _ => return Ok(Value::Nil),
                };
                Ok(values.into_iter().nth(at).unwrap_or(Value::Nil))
            }
            "count" => {
                let values = self.values(&needed(0)?, &needed(1)?);
                Ok(Value::Number(values.len() as f64))
            }
            "add" | "replace" | "remove" => {
                let value = match question {
                    "remove" => String::new(),
                    _ => needed(2)?,
                };
                self.change(question, &needed(0)?, &needed(1)?, &value)?;
                Ok(Value::Nil)
            }
            "list" => {
                let trailers = needed(0)? == "trailers";
                let apart = if trailers { Vec::new() } else { self.apart() };
                let none = HeaderMap::new();
                let headers = match (trailers, &self.making) {
                    (true, _) => self.trailers.as_ref().unwrap_or(&none),
                    (false, Some(making)) => &making.headers,
                    (false, None) => &self.record.head.headers,
                };
                let apart = apart
                    .iter()
                    .map(|(name, value)| (*name, Value::text(value)));
                let others = headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), Value::text(value)));
                let entry = |(name, value): (&str, Value)| {
                    Value::Table(vec![
                        (Value::Number(1.0), Value::text(name)),
                        (Value::Number(2.0), value),
                    ])
                };
                let numbers = (1u32..).map(|index| Value::Number(index.into()));
                Ok(Value::Table(
                    numbers.zip(apart.chain(others).map(entry)).collect(),
                ))
            }
            "chunked" => {
                self.record.replay = Some(Replay::new(
                    Body::Chained(VecDeque::new(), Box::new(Body::full(Bytes::new()))),
                    0,
                ));
                Ok(Value::Nil)
            }
            "set_body" => {
                let bytes = match arguments.into_iter().next() {
                    Some(Value::String(bytes)) => bytes,
                    _ => Vec::new(),
                };
                self.set_body(bytes.into());
                Ok(Value::Nil)
            }
            "respond" => self.respond(&arguments),
            "metadata" => Ok(self
                .record
                .metadata
                .get(&needed(0)?)
                .map_or(Value::Nil, from_json)),
            "all_metadata" => Ok(from_json(&serde_json::Value::Object(
                self.record.metadata.clone(),
            ))),
            "set_metadata" => {
                let value = arguments.get(2).map_or(serde_json::Value::Null, to_json);
                let entry = self.record.metadata.entry(needed(0)?);
                let fields = entry.or_insert_with(|| serde_json::Map::new().into());
                if let serde_json::Value::Object(fields) = fields {
                    fields.insert(needed(1)?, value);
                }
                Ok(Value::Nil)
            }
            "route_metadata" => {
                let route = self.record.route.as_ref();
                let own = route.and_then(|route| {
                    let all = &route.metadata;
                    all.get(self.name)
                        .or_else(|| all.get("envoy.filters.http.lua"))
                });
                Ok(own.map_or(Value::Table(Vec::new()), from_json))
            }
            "filter_context" => Ok(self.context.clone()),
            "stream" => Ok(self.stream(&needed(0)?)),
            "ssl" => Ok(self.ssl()),
            "drain" => {
                self.close = true;
                Ok(Value::Nil)
            }
            "clear_route_cache" => {
                self.clear_route_cache = true;
                Ok(Value::Nil)
            }
            "log" => {
                let message = text(1).unwrap_or_default();
                match needed(0)?.as_str() {
                    "trace" => tracing::trace!(target: "lua", "script log: {message}"),
                    "debug" => tracing::debug!(target: "lua", "script log: {message}"),
                    "info" => tracing::info!(target: "lua", "script log: {message}"),
                    "warn" => tracing::warn!(target: "lua", "script log: {message}"),
                    _ => tracing::error!(target: "lua", "script log: {message}"),
                }
                Ok(Value::Nil)
            }
            "base64" => match arguments.first() {
                Some(Value::String(bytes)) => Ok(Value::text(BASE64.encode(bytes))),
                _ => Err("bad argument #1 to 'base64Escape' (string expected)".into()),
            },
            "timestamp" => Ok(Value::Number(match arguments.first() {
                Some(Value::Number(1.0)) => since().as_micros() as f64,
                _ => since().as_millis() as f64,
            })),
            "timestamp_text" => Ok(Value::text(match arguments.first() {
                Some(Value::Number(1.0)) => since().as_micros().to_string(),
                _ => since().as_millis().to_string(),
            })),
            "http_call_apart" => {
                let call = Call::read(&arguments, self.conn)?;
                call.apart(&self.conn.worker, &self.conn.shared);
                Ok(Value::Nil)
            }
            other => Err(format!("{other}() is not supported by this proxy")),
        }
    }
}

/// The headers of a table: values are texts or lists of them.
pub fn headers_of(table: Option<&Value>) -> Result<Vec<(String, String)>, String> {
    let Some(Value::Table(entries)) = table else {
        return Err("headers must be a table".into());
    };
    let mut all = Vec::new();
    for (name, value) in entries {
        let Some(name) = name.as_text() else { continue };
        let name = name.to_ascii_lowercase();
        match value {
            Value::Table(list) => {
                for value in list.iter().filter_map(|(_, value)| value.as_text()) {
                    all.push((name.clone(), value.into_owned()));
                }
            }
            value => {
                let value = value
                    .as_text()
                    .ok_or_else(|| format!("{name}: is no text"))?;
                all.push((name, value.into_owned()));
            }
        }
    }
    // Tables have no order; requests and answers are to be the same every time.
    all.sort();
    Ok(all)
}

/// Adds a header.
pub fn append(
    headers: &mut HeaderMap,
    name: &str,
    value: &str,
    direction: Direction,
) -> Result<(), String> {
    let name = HeaderName::try_from(name).map_err(|_| format!("{name:?} is no header"))?;
    let value = HeaderValue::try_from(value).map_err(|_| format!("{name}: a wrong value"))?;
    lists::append(direction, headers, &name, value);
    Ok(())
}

/// JSON as scripts see it; lists begin at 1.
pub fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => Value::Number(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Value::text(text),
        serde_json::Value::Array(list) => {
            let numbers = (1u32..).map(|index| Value::Number(index.into()));
            Value::Table(numbers.zip(list.iter().map(from_json)).collect())
        }
        serde_json::Value::Object(fields) => {
            let field = |(name, value)| (Value::text(name), from_json(value));
            Value::Table(fields.iter().map(field).collect())
        }
    }
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Nil => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        // As Envoy prints them: whole numbers without a point.
        Value::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            (*number as i64).into()
        }
        Value::Number(number) => (*number).into(),
        Value::String(bytes) => String::from_utf8_lossy(bytes).into(),
        Value::Table(entries) => {
            let list = (1u32..)
                .zip(entries)
                .all(|(index, (key, _))| *key == Value::Number(index.into()));
            if list && !entries.is_empty() {
                return entries.iter().map(|(_, value)| to_json(value)).collect();
            }
            let field =
                |(key, value): &(Value, Value)| Some((key.as_text()?.into_owned(), to_json(value)));
            // Tables have no order.
            let fields: BTreeMap<_, _> = entries.iter().filter_map(field).collect();
            serde_json::Value::Object(fields.into_iter().collect())
        }
    }
}
