//! `lua`: scripts that look at requests and answers, with the methods that Envoy's scripts have. Of these are not there
//! (calling them is an error that says so): `setHttp1ReasonPhrase`, `importPublicKey`, `verifySignature`,
//! `setUpstreamOverrideHost`, `connectionStreamInfo`, `virtualHost`, `route`; trailers can be read and not be changed, and
//! `bodyChunks` gives the body in one piece.

mod host;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use dataplane::lists::Direction;
use dataplane::local_reply;
use dataplane::matching::struct_to_json;
use http::header;
use http::{HeaderMap, Method};
use lua::{Step, Value};
use xds::envoy::config::core::v3::{DataSource, data_source::Specifier};
use xds::envoy::extensions::filters::http::lua::v3 as config;

use super::FilterContext;
use crate::body::{Body, Frame, Replay};
use crate::config::Shared;
use crate::http::callout;
use crate::http::connection::{Answer, Connection, Flow};
use crate::http::mirror;
use crate::http::record::{Head, Record};
use crate::http::respond::Making;
use crate::stats::groups::LuaStats;
use crate::worker::Worker;
use host::{Side, from_json};

/// The most bytes of a body that a script may read at once.
const MAX_BODY: usize = 1024 * 1024;

/// The filter, compiled.
pub struct Lua {
    default: Option<Arc<Script>>,
    named: HashMap<String, Arc<Script>>,
    context: Value,
    clear_route_cache: bool,
    stats: Arc<LuaStats>,
}

/// What a route says to the filter.
pub struct PerRoute {
    script: Choice,
    context: Option<Value>,
}

enum Choice {
    Default,
    Disabled,
    Named(String),
    Own(Arc<Script>),
}

/// A script. Each worker has an interpreter for it with global variables of its own.
pub struct Script {
    id: u64,
    code: String,
    on_request: bool,
    on_response: bool,
}

thread_local! {
    static INTERPRETERS: RefCell<Vec<(Weak<Script>, Rc<lua::Lua>)>> = RefCell::default();
}

impl Script {
    fn compile(code: String) -> Result<Arc<Self>, String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let first = interpret(&code).map_err(|error| format!("script load error: {error}"))?;
        Ok(Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            on_request: first.has("envoy_on_request"),
            on_response: first.has("envoy_on_response"),
            code,
        }))
    }

    fn of(source: &DataSource) -> Result<Arc<Self>, String> {
        Self::compile(match &source.specifier {
            Some(Specifier::InlineString(text)) => text.clone(),
            Some(Specifier::InlineBytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Some(Specifier::Filename(path)) => std::fs::read_to_string(path)
                .map_err(|error| format!("filename: {path}: {error}"))?,
            Some(Specifier::EnvironmentVariable(name)) => std::env::var(name)
                .map_err(|_| format!("environment_variable: {name} is not set"))?,
            None => return Err("specifier: is missing".into()),
        })
    }

    /// The interpreter of this worker.
    fn interpreter(self: &Arc<Self>) -> Result<Rc<lua::Lua>, String> {
        INTERPRETERS.with_borrow_mut(|all| {
            let same = |script: &Weak<Self>| script.upgrade().is_some_and(|s| s.id == self.id);
            if let Some((_, found)) = all.iter().find(|(script, _)| same(script)) {
                return Ok(found.clone());
            }
            all.retain(|(script, _)| script.strong_count() > 0);
            let made = Rc::new(interpret(&self.code)?);
            all.push((Arc::downgrade(self), made.clone()));
            Ok(made)
        })
    }
}

/// An interpreter that has run the script: its functions are there.
fn interpret(code: &str) -> Result<lua::Lua, String> {
    let lua = lua::Lua::new(include_str!("prelude.lua"))?;
    // As Envoy: the code is its own name in errors, cut off by Lua.
    lua.run(code, code)?;
    Ok(lua)
}

impl Lua {
    /// Compiles the filter.
    ///
    /// # Errors
    /// What of it is wrong: a script that cannot be read, with Lua's words.
    #[allow(deprecated)]
    pub fn compile(config: &config::Lua, context: &FilterContext<'_>) -> Result<Self, String> {
        if !config.package_paths.is_empty() || !config.package_cpaths.is_empty() {
            return Err("package_paths: scripts cannot load packages in this proxy".into());
        }
        let default = match (&config.default_source_code, config.inline_code.as_str()) {
            (Some(_), code) if !code.is_empty() => {
                return Err("Error: Only one of `inline_code` or `default_source_code` can be set for the Lua filter.".into());
            }
            (Some(source), _) => {
                Some(Script::of(source).map_err(|error| format!("default_source_code.{error}"))?)
            }
            (None, "") => None,
            (None, code) => Some(Script::compile(code.to_owned())?),
        };
        let named = |(name, source): (&String, &DataSource)| {
            let script = Script::of(source);
            let script = script.map_err(|error| format!("source_codes[{name}].{error}"))?;
            Ok::<_, String>((name.clone(), script))
        };
        let prefix = match config.stat_prefix.as_str() {
            "" => format!("http.{}.lua", context.stat_prefix),
            own => format!("http.{}.lua.{own}", context.stat_prefix),
        };
        Ok(Self {
            default,
            named: config
                .source_codes
                .iter()
                .map(named)
                .collect::<Result<_, _>>()?,
            context: context_of(config.filter_context.as_ref()),
            clear_route_cache: config.clear_route_cache.unwrap_or(true),
            stats: context.shared.stats.group(&prefix),
        })
    }

    fn script<'a>(&'a self, route: Option<&'a PerRoute>) -> Option<&'a Arc<Script>> {
        match route.map_or(&Choice::Default, |route| &route.script) {
            Choice::Default => self.default.as_ref(),
            Choice::Disabled => None,
            Choice::Named(name) => self.named.get(name),
            Choice::Own(script) => Some(script),
        }
    }

    /// Whether there is something to do with answers.
    pub fn wants_response(&self, route: Option<&PerRoute>) -> bool {
        self.script(route).is_some_and(|script| script.on_response)
    }

    /// Lets the script see a request; an answer is its own.
    pub async fn request(
        &self,
        conn: &Rc<Connection>,
        record: &mut Record,
        flow: &mut Flow,
        name: &str,
        route: Option<&PerRoute>,
    ) -> Option<Answer> {
        let script = self.script(route).filter(|script| script.on_request)?;
        let mut side = Side::new(conn, record, name, self.context(route));
        let done = self.run(script, "__theater_request", &mut side).await;
        flow.reroute |= side.changed && self.clear_route_cache || side.clear_route_cache;
        flow.close |= side.close;
        let answer = side.answer.take();
        match done {
            Ok(()) => answer,
            Err(Stopped::TooLarge) => Some(Answer::Local(local_reply::REQUEST_TOO_LARGE)),
            Err(Stopped::Script(error)) => {
                self.failed(&error);
                None
            }
        }
    }

    /// Lets the script see an answer.
    pub async fn response(
        &self,
        conn: &Rc<Connection>,
        record: &mut Record,
        flow: &mut Flow,
        making: &mut Making,
        name: &str,
        route: Option<&PerRoute>,
    ) {
        let Some(script) = self.script(route).filter(|script| script.on_response) else {
            return;
        };
        let mut side = Side::new(conn, record, name, self.context(route));
        side.making = Some(making);
        let done = self.run(script, "__theater_response", &mut side).await;
        flow.close |= side.close;
        match done {
            Ok(()) => {}
            Err(Stopped::TooLarge) => self.failed("the body of the response is too large"),
            Err(Stopped::Script(error)) => self.failed(&error),
        }
    }

    fn context<'a>(&'a self, route: Option<&'a PerRoute>) -> &'a Value {
        route
            .and_then(|route| route.context.as_ref())
            .unwrap_or(&self.context)
    }

    fn failed(&self, error: &str) {
        self.stats.errors.inc();
        tracing::error!(target: "lua", "script log: {error}");
    }

    async fn run(
        &self,
        script: &Arc<Script>,
        function: &str,
        side: &mut Side<'_>,
    ) -> Result<(), Stopped> {
        self.stats.executions.inc();
        let lua = script.interpreter().map_err(Stopped::Script)?;
        let mut running = lua.coroutine(function);
        let mut values = Vec::new();
        loop {
            let asked = match running.resume(side, &values).map_err(Stopped::Script)? {
                Step::Done => return Ok(()),
                Step::Wait(asked) => asked,
            };
            let question = asked.first().and_then(Value::as_text);
            values = match question.as_deref() {
                Some("end") => return Ok(()),
                Some("body") => vec![match side.body().await? {
                    Some(bytes) => Value::text(bytes),
                    None => Value::Nil,
                }],
                Some("trailers") => {
                    let body = side.body().await?.is_some();
                    vec![Value::Bool(body), Value::Bool(side.trailers.is_some())]
                }
                Some("http_call") => match Call::read(&asked[1..], side.conn) {
                    Ok(call) => {
                        let flat = !matches!(asked.get(5), Some(Value::Bool(true)));
                        let (worker, shared) = (&side.conn.worker, &side.conn.shared);
                        vec![call.make(worker, shared, flat).await]
                    }
                    Err(error) => vec![Value::Nil, Value::text(error)],
                },
                _ => {
                    return Err(Stopped::Script(
                        "script performed an unexpected yield".into(),
                    ));
                }
            };
        }
    }
}

/// Why a script did not come to its end.
enum Stopped {
    Script(String),
    TooLarge,
}

fn context_of(fields: Option<&xds::prost_types::Struct>) -> Value {
    let fields = fields.map(struct_to_json).unwrap_or_default();
    from_json(&serde_json::Value::Object(fields))
}

impl PerRoute {
    /// Compiles what a route says.
    ///
    /// # Errors
    /// What of it is wrong.
    pub fn compile(config: &config::LuaPerRoute) -> Result<Self, String> {
        use config::lua_per_route::Override;
        if !config.package_paths.is_empty() || !config.package_cpaths.is_empty() {
            return Err("package_paths: scripts cannot load packages in this proxy".into());
        }
        Ok(Self {
            script: match &config.r#override {
                None => Choice::Default,
                Some(Override::Disabled(true)) => Choice::Disabled,
                Some(Override::Disabled(false)) => {
                    return Err("disabled: must be true".into());
                }
                Some(Override::Name(name)) => Choice::Named(name.clone()),
                Some(Override::SourceCode(source)) => {
                    Choice::Own(Script::of(source).map_err(|error| format!("source_code.{error}"))?)
                }
            },
            context: config
                .filter_context
                .as_ref()
                .map(|fields| context_of(Some(fields))),
        })
    }
}

/// A request that a script makes.
pub(super) struct Call {
    cluster: String,
    head: Head,
    body: Bytes,
    timeout: Duration,
}

impl Call {
    /// Reads cluster, headers, body and timeout.
    fn read(arguments: &[Value], conn: &Connection) -> Result<Self, String> {
        let text = |at: usize| arguments.get(at).and_then(Value::as_text);
        let cluster = text(0).unwrap_or_default().into_owned();
        if conn.shared.cluster(&cluster).is_none() {
            return Err("http call cluster invalid. Must be configured".into());
        }
        let mut head = Head::empty();
        let mut pseudo = 0;
        for (name, value) in host::headers_of(arguments.get(1))? {
            match name.as_str() {
                ":method" => {
                    head.method = Method::try_from(value.as_str())
                        .map_err(|_| format!(":method: {value:?} is no method"))?;
                    pseudo += 1;
                }
                ":path" => (head.path, pseudo) = (value, pseudo + 1),
                ":authority" | "host" => (head.authority, pseudo) = (value, pseudo + 1),
                ":scheme" => {}
                name => host::append(&mut head.headers, name, &value, Direction::Request)?,
            }
        }
        if pseudo < 3 {
            return Err("http headers must include ':path', ':method', and ':authority'".into());
        }
        let mut body = Bytes::new();
        if let Some(Value::String(bytes)) = arguments.get(2) {
            body = Bytes::from(bytes.clone());
            head.headers
                .insert(header::CONTENT_LENGTH, body.len().into());
        }
        let timeout = match arguments.get(3) {
            Some(Value::Number(millis)) if *millis >= 0.0 => *millis,
            _ => return Err("http call timeout must be >= 0".into()),
        };
        let timeout = (timeout > 0.0).then(|| Duration::from_millis(timeout as u64));
        mirror::of_our_own(&mut head.headers, timeout);
        mirror::from_here(conn, &mut head.headers);
        Ok(Self {
            cluster,
            head,
            body,
            // None is for ever; a day is long enough.
            timeout: timeout.unwrap_or(Duration::from_secs(86_400)),
        })
    }

    /// Makes it. `flat`: of several headers of a name the last is told.
    async fn make(self, worker: &Worker, shared: &Shared, flat: bool) -> Value {
        let (cluster, head) = (self.cluster.as_str(), &self.head);
        let reply = callout::http(worker, shared, cluster, head, self.body, self.timeout).await;
        let (status, headers, body) = match reply {
            Ok(reply) => (reply.status.as_u16(), reply.headers, reply.body),
            Err(callout::CallError::Timeout) => {
                (504, HeaderMap::new(), "upstream request timeout".into())
            }
            Err(_) => (503, HeaderMap::new(), "upstream failure".into()),
        };
        let mut told = vec![(Value::text(":status"), Value::text(status.to_string()))];
        for name in headers.keys() {
            let mut all = headers.get_all(name).iter().map(Value::text);
            let value = match flat {
                true => all.next_back().unwrap_or(Value::Nil),
                false => {
                    let all: Vec<Value> = all.collect();
                    match all.as_slice() {
                        [one] => one.clone(),
                        _ => Value::Table(
                            (1u32..)
                                .map(|index| Value::Number(index.into()))
                                .zip(all)
                                .collect(),
                        ),
                    }
                }
            };
            told.push((Value::text(name.as_str()), value));
        }
        let body = match body.is_empty() {
            true => Value::Nil,
            false => Value::text(&body),
        };
        Value::Table(vec![
            (Value::text("headers"), Value::Table(told)),
            (Value::text("body"), body),
        ])
    }

    /// Makes it beside everything else; nobody waits for the answer.
    pub(super) fn apart(self, worker: &Rc<Worker>, shared: &Arc<Shared>) {
        let (worker, shared) = (worker.clone(), shared.clone());
        tokio::task::spawn_local(async move {
            self.make(&worker, &shared, true).await;
        });
    }
}

impl Side<'_> {
    /// The whole body, read ahead; none when there is none.
    async fn body(&mut self) -> Result<Option<Bytes>, Stopped> {
        match &mut self.making {
            None => {
                let Some(replay) = self.record.replay.clone() else {
                    return Ok(None);
                };
                match Replay::buffer(&replay, MAX_BODY).await {
                    Ok(read) if read.complete => {
                        self.trailers = replay.borrow().trailers();
                        Ok(Some(read.bytes))
                    }
                    Ok(_) => Err(Stopped::TooLarge),
                    Err(_) => Err(Stopped::Script("the body of the request broke off".into())),
                }
            }
            Some(making) => {
                if matches!(making.body, Body::Empty | Body::Tunnel(_)) {
                    return Ok(None);
                }
                let mut frames = std::collections::VecDeque::new();
                let mut bytes = Vec::new();
                let mut ended = true;
                while let Some(frame) = making.body.frame().await {
                    match frame {
                        Ok(Frame::Data(data)) => {
                            bytes.extend_from_slice(&data);
                            frames.push_back(Frame::Data(data));
                            if bytes.len() > MAX_BODY {
                                ended = false;
                                break;
                            }
                        }
                        Ok(Frame::Trailers(trailers)) => {
                            self.trailers = Some(trailers.clone());
                            frames.push_back(Frame::Trailers(trailers));
                        }
                        Err(_) => {
                            return Err(Stopped::Script(
                                "the body of the response broke off".into(),
                            ));
                        }
                    }
                }
                let rest = std::mem::replace(&mut making.body, Body::Empty);
                making.body = Body::Chained(frames, Box::new(rest));
                match ended {
                    true => Ok(Some(bytes.into())),
                    false => Err(Stopped::TooLarge),
                }
            }
        }
    }
}
