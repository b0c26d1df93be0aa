//! The endpoints. Pure: a request and a random number in, an answer out.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, HeaderValue, LOCATION, SET_COOKIE,
};
use http::request::Parts;
use serde_json::{Map, Value, json};

use crate::Shape;
use crate::answer::Answer;
use crate::query::{decode, pairs};

/// The longest that an answer is held back, as in the originals.
const LONGEST: f64 = 10.0;

/// The most bytes that are made up, as in the originals.
const MOST_BYTES: usize = 100 * 1024;

/// The most lines that are streamed, as in the originals.
const MOST_LINES: usize = 100;

/// A request.
pub(crate) struct Asked {
    pub shape: Shape,
    /// Address of the client.
    pub from: String,
    pub parts: Parts,
    pub body: Bytes,
    /// 0 to 1, for what is left to chance.
    pub draw: f64,
}

/// What is answered.
pub(crate) fn answer(asked: &Asked) -> Answer {
    let path = asked.parts.uri.path();
    let segments: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let reads = matches!(asked.parts.method.as_str(), "GET" | "HEAD");
    if asked.parts.method == http::Method::OPTIONS {
        return Answer::new(200).header(
            HeaderName::from_static("allow"),
            HeaderValue::from_static("GET, POST, HEAD, PUT, DELETE, PATCH, OPTIONS"),
        );
    }
    match segments.as_slice() {
        ["anything", ..] => Answer::json(&asked.all()),
        ["get"] if reads => Answer::json(&asked.told(false)),
        ["post"] if asked.is("POST") => Answer::json(&asked.told(true)),
        ["put"] if asked.is("PUT") => Answer::json(&asked.told(true)),
        ["patch"] if asked.is("PATCH") => Answer::json(&asked.told(true)),
        ["delete"] if asked.is("DELETE") => Answer::json(&asked.told(true)),
        ["status", codes] => status(codes, asked.draw),
        ["delay", seconds] => match seconds.trim_end_matches('s').parse::<f64>() {
            Ok(seconds) if seconds >= 0.0 => Answer {
                delay: Duration::from_secs_f64(seconds.min(LONGEST)),
                ..Answer::json(&asked.told(!reads))
            },
            _ => Answer::text(400, "invalid delay\n"),
        },
        ["get" | "post" | "put" | "patch" | "delete"] => {
            Answer::text(405, "Method Not Allowed\n")
        }
        _ if !reads => Answer::text(404, "Not Found\n"),
        [""] => Answer::new(200)
            .kind("text/html; charset=utf-8")
            .body("<!DOCTYPE html>\n<html><head><title>httpbin.org</title></head><body><h1>httpbin</h1></body></html>\n"),
        ["headers"] => Answer::json(&json!({"headers": asked.headers()})),
        ["ip"] => Answer::json(&json!({"origin": asked.from})),
        ["user-agent"] => Answer::json(&json!({"user-agent": asked.header("user-agent")})),
        ["hostname"] if asked.shape == Shape::Go => {
            Answer::json(&json!({"hostname": std::env::var("HOSTNAME").unwrap_or_default()}))
        }
        ["uuid"] => Answer::json(&json!({"uuid": uuid::Uuid::new_v4().to_string()})),
        ["json"] => Answer::json(&json!({
            "slideshow": {
                "author": "Yours Truly",
                "date": "date of publication",
                "slides": [
                    {"title": "Wake up to WonderWidgets!", "type": "all"},
                    {
                        "items": ["Why <em>WonderWidgets</em> are great", "Who <em>buys</em> WonderWidgets"],
                        "title": "Overview",
                        "type": "all"
                    }
                ],
                "title": "Sample Slide Show"
            }
        })),
        ["html"] => Answer::new(200)
            .kind("text/html; charset=utf-8")
            .body("<!DOCTYPE html>\n<html><head></head><body><h1>A page</h1></body></html>\n"),
        ["robots.txt"] => Answer::text(200, "User-agent: *\nDisallow: /deny\n"),
        ["deny"] => Answer::text(200, "YOU SHOULDN'T BE HERE\n"),
        ["encoding", "utf8"] => Answer::new(200)
            .kind("text/html; charset=utf-8")
            .body("<h1>UTF-8: 한글, Ελληνικά, ✓</h1>\n"),
        ["bytes", count] => number(count, |count| {
            Answer::new(200)
                .kind("application/octet-stream")
                .body(random(count.min(MOST_BYTES)))
        }),
        ["stream-bytes", count] => number(count, |count| Answer {
            parts: random(count.min(MOST_BYTES))
                .chunks(10 * 1024)
                .map(Bytes::copy_from_slice)
                .collect(),
            chunked: true,
            ..Answer::new(200).kind("application/octet-stream")
        }),
        ["stream", count] => number(count, |count| {
            let mut told = asked.told(false);
            Answer {
                parts: (0..count.min(MOST_LINES))
                    .map(|id| {
                        told["id"] = id.into();
                        Bytes::from(format!("{told}\n"))
                    })
                    .collect(),
                chunked: true,
                ..Answer::new(200).kind("application/json")
            }
        }),
        ["redirect" | "relative-redirect", count] => {
            let absolute = asked.argument("absolute").as_deref() == Some("true");
            number(count, |count| asked.redirect(count, absolute))
        }
        ["absolute-redirect", count] => number(count, |count| asked.redirect(count, true)),
        ["redirect-to"] => {
            let status = asked
                .argument("status_code")
                .and_then(|code| code.parse().ok())
                .filter(|code| (300..400).contains(code))
                .unwrap_or(302);
            match asked.argument("url") {
                Some(url) => location(status, &url),
                None => Answer::text(400, "Missing URL\n"),
            }
        }
        ["cookies"] => Answer::json(&asked.cookies()),
        ["cookies", "set"] => asked.set_cookies(asked.arguments()),
        ["cookies", "set", name, value] => {
            asked.set_cookies(vec![((*name).to_owned(), (*value).to_owned())])
        }
        ["basic-auth", user, password] => asked.basic(user, password),
        ["bearer"] => match asked.header("authorization").strip_prefix("Bearer ") {
            Some(token) => Answer::json(&json!({"authenticated": true, "token": token})),
            None => Answer::new(401).header(
                HeaderName::from_static("www-authenticate"),
                HeaderValue::from_static("Bearer"),
            ),
        },
        ["base64", text] => match STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)) {
            Ok(decoded) => Answer::text(200, String::from_utf8_lossy(&decoded)),
            Err(_) => Answer::text(400, "Incorrect Base64 data\n"),
        },
        ["response-headers"] => asked.response_headers(),
        ["cache"] => {
            let conditional = ["if-modified-since", "if-none-match"]
                .iter()
                .any(|name| asked.parts.headers.contains_key(*name));
            if conditional {
                Answer::new(304)
            } else {
                Answer::json(&asked.told(false))
            }
        }
        _ => Answer::text(404, "Not Found\n"),
    }
}

impl Asked {
    fn is(&self, method: &str) -> bool {
        self.parts.method.as_str() == method
    }

    fn header(&self, name: &str) -> String {
        self.parts
            .headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .unwrap_or_default()
    }

    fn arguments(&self) -> Vec<(String, String)> {
        pairs(self.parts.uri.query().unwrap_or_default())
    }

    fn argument(&self, name: &str) -> Option<String> {
        self.arguments()
            .into_iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value)
    }

    /// Values of one name in the program's shape, names in alphabetical order.
    fn shaped(&self, pairs: Vec<(String, String)>, joined: bool) -> Value {
        let mut sorted: std::collections::BTreeMap<String, Vec<String>> = Default::default();
        for (name, value) in pairs {
            sorted.entry(name).or_default().push(value);
        }
        let object: Map<String, Value> = sorted
            .into_iter()
            .map(|(name, values)| {
                let value = match (self.shape, values.as_slice()) {
                    (Shape::Go, _) => json!(values),
                    (Shape::Python, [one]) => json!(one),
                    (Shape::Python, _) if joined => json!(values.join(",")),
                    (Shape::Python, _) => json!(values),
                };
                (name, value)
            })
            .collect();
        Value::Object(object)
    }

    fn headers(&self) -> Value {
        let pairs = self
            .parts
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    canonical(name.as_str()),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        self.shaped(pairs, true)
    }

    fn host(&self) -> String {
        match self.header(HOST.as_str()) {
            host if host.is_empty() => self
                .parts
                .uri
                .authority()
                .map(|authority| authority.as_str().to_owned())
                .unwrap_or_default(),
            host => host,
        }
    }

    fn url(&self) -> String {
        let scheme = match self.header("x-forwarded-proto") {
            scheme if scheme == "https" => scheme,
            _ => "http".to_owned(),
        };
        let path = self
            .parts
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str());
        format!("{scheme}://{}{path}", self.host())
    }

    /// What most endpoints answer; with the body when there can be one.
    fn told(&self, with_body: bool) -> Value {
        let args = self.shaped(self.arguments(), false);
        let mut told = Map::new();
        told.insert("args".into(), args);
        if with_body {
            let text = match std::str::from_utf8(&self.body) {
                Ok(text) => text.to_owned(),
                Err(_) => format!(
                    "data:application/octet-stream;base64,{}",
                    STANDARD.encode(&self.body)
                ),
            };
            let is_form = self
                .header(CONTENT_TYPE.as_str())
                .starts_with("application/x-www-form-urlencoded");
            let form = if is_form { pairs(&text) } else { Vec::new() };
            let json = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
            // The first of the two programs tells a form in `form` only.
            let data = if is_form && self.shape == Shape::Python {
                String::new()
            } else {
                text
            };
            told.insert("data".into(), data.into());
            told.insert("files".into(), json!({}));
            told.insert("form".into(), self.shaped(form, false));
            told.insert("headers".into(), self.headers());
            told.insert("json".into(), json);
        } else {
            told.insert("headers".into(), self.headers());
        }
        if self.shape == Shape::Go {
            told.insert("method".into(), self.parts.method.as_str().into());
        }
        told.insert("origin".into(), self.from.clone().into());
        told.insert("url".into(), self.url().into());
        Value::Object(told)
    }

    fn all(&self) -> Value {
        let mut told = self.told(true);
        if let Value::Object(map) = &mut told {
            map.insert("method".into(), self.parts.method.as_str().into());
            map.sort_keys();
        }
        told
    }

    fn redirect(&self, count: usize, absolute: bool) -> Answer {
        if count == 0 {
            return Answer::text(400, "Invalid redirect count\n");
        }
        let path = match (count, absolute) {
            (1, _) => "/get".to_owned(),
            (count, true) => format!("/absolute-redirect/{}", count - 1),
            (count, false) => format!("/relative-redirect/{}", count - 1),
        };
        if absolute {
            location(302, &format!("http://{}{path}", self.host()))
        } else {
            location(302, &path)
        }
    }

    fn cookies(&self) -> Value {
        let cookies: Map<String, Value> = self
            .header(COOKIE.as_str())
            .split(';')
            .filter_map(|cookie| cookie.trim().split_once('='))
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        match self.shape {
            Shape::Python => json!({"cookies": cookies}),
            Shape::Go => Value::Object(cookies),
        }
    }

    fn set_cookies(&self, cookies: Vec<(String, String)>) -> Answer {
        let mut answer = location(302, "/cookies");
        for (name, value) in cookies {
            match HeaderValue::from_str(&format!("{name}={value}; Path=/")) {
                Ok(cookie) => answer = answer.header(SET_COOKIE, cookie),
                Err(_) => return Answer::text(400, "invalid cookie\n"),
            }
        }
        answer
    }

    fn basic(&self, user: &str, password: &str) -> Answer {
        let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        if self.header(AUTHORIZATION.as_str()) != expected {
            return Answer::new(401).header(
                HeaderName::from_static("www-authenticate"),
                HeaderValue::from_static("Basic realm=\"Fake Realm\""),
            );
        }
        Answer::json(&json!({"authenticated": true, "user": user}))
    }

    fn response_headers(&self) -> Answer {
        let arguments = self.arguments();
        let mut answer = Answer::json(&self.shaped(arguments.clone(), false));
        for (name, value) in arguments {
            match (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_str(&value),
            ) {
                (Ok(name), Ok(value)) => answer = answer.header(name, value),
                _ => return Answer::text(400, "invalid header\n"),
            }
        }
        answer
    }
}

/// `418`, or a choice such as `200,503` or `200:0.9,503:0.1`.
fn status(codes: &str, draw: f64) -> Answer {
    let mut choices = Vec::new();
    for choice in codes.split(',') {
        let (code, weight) = choice.split_once(':').unwrap_or((choice, "1"));
        match (code.trim().parse::<u16>(), weight.trim().parse::<f64>()) {
            (Ok(code @ 100..=599), Ok(weight)) if weight >= 0.0 => choices.push((code, weight)),
            _ => return Answer::text(400, "Invalid status code\n"),
        }
    }
    let mut left = draw * choices.iter().map(|(_, weight)| weight).sum::<f64>();
    let chosen = choices
        .iter()
        .find(|(_, weight)| {
            left -= weight;
            left < 0.0
        })
        .or(choices.last());
    match chosen.map(|(code, _)| *code) {
        Some(code @ (301 | 302 | 303 | 305 | 307)) => location(code, "/redirect/1"),
        Some(418) => Answer::text(418, "I'm a teapot!\n"),
        // An answer of 1xx is none: the client would wait for the real one.
        Some(code) if code < 200 => Answer::text(400, "Invalid status code\n"),
        Some(code) => Answer::new(code).kind("text/html; charset=utf-8"),
        None => Answer::text(400, "Invalid status code\n"),
    }
}

fn location(status: u16, url: &str) -> Answer {
    match HeaderValue::from_str(url) {
        Ok(url) => Answer::new(status).header(LOCATION, url),
        Err(_) => Answer::text(400, "invalid URL\n"),
    }
}

fn number(text: &str, then: impl FnOnce(usize) -> Answer) -> Answer {
    match text.parse() {
        Ok(count) => then(count),
        Err(_) => Answer::text(400, "invalid number\n"),
    }
}

fn random(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    rand::fill(bytes.as_mut_slice());
    bytes
}

/// `x-b3-traceid` is `X-B3-Traceid`: as both programs tell names of headers.
fn canonical(name: &str) -> String {
    let mut upper = true;
    name.chars()
        .map(|letter| {
            let shown = if upper {
                letter.to_ascii_uppercase()
            } else {
                letter
            };
            upper = letter == '-';
            shown
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn ask(shape: Shape, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header("host", "httpbin:8000");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        answer(&Asked {
            shape,
            from: "127.0.0.6".into(),
            parts,
            body: Bytes::copy_from_slice(body.as_bytes()),
            draw: 0.5,
        })
    }

    fn get(url: &str) -> Answer {
        ask(Shape::Python, "GET", url, &[], "")
    }

    fn body(answer: &Answer) -> String {
        String::from_utf8_lossy(&answer.parts.concat()).into_owned()
    }

    fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        answer
            .headers
            .iter()
            .find(|(own, _)| own == name)
            .and_then(|(_, value)| value.to_str().ok())
    }

    #[test]
    fn get_tells_the_request_in_the_programs_shape() {
        let python = ask(
            Shape::Python,
            "GET",
            "/get?a=1&a=2&b=x",
            &[("x-b3-traceid", "t")],
            "",
        );
        assert_eq!(
            body(&python),
            "{\n  \"args\": {\n    \"a\": [\n      \"1\",\n      \"2\"\n    ],\n    \"b\": \"x\"\n  },\n  \
             \"headers\": {\n    \"Host\": \"httpbin:8000\",\n    \"X-B3-Traceid\": \"t\"\n  },\n  \
             \"origin\": \"127.0.0.6\",\n  \"url\": \"http://httpbin:8000/get?a=1&a=2&b=x\"\n}\n"
        );
        let go: Value =
            serde_json::from_str(&body(&ask(Shape::Go, "GET", "/get?b=x", &[], ""))).unwrap();
        assert_eq!(go["args"], json!({"b": ["x"]}));
        assert_eq!(go["headers"]["Host"], json!(["httpbin:8000"]));
        assert_eq!(go["method"], "GET");
    }

    #[test]
    fn bodies_are_told_as_data_form_and_json() {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let told = |headers: &[(&str, &str)], text| -> Value {
            serde_json::from_str(&body(&ask(Shape::Python, "POST", "/post", headers, text)))
                .unwrap()
        };
        assert_eq!(told(&form, "a=b")["form"], json!({"a": "b"}));
        let told = told(&[("content-type", "application/json")], "{\"a\":1}");
        assert_eq!(told["json"], json!({"a": 1}));
        assert_eq!(told["data"], "{\"a\":1}");
    }

    #[test]
    fn statuses_redirects_and_delays_are_as_asked() {
        assert_eq!(get("/status/503").status, 503);
        assert_eq!(get("/status/200:0.4,500:0.6").status, 500);
        assert_eq!(get("/status/abc").status, 400);
        assert_eq!(get("/status/100").status, 400);
        assert_eq!(header(&get("/status/302"), "location"), Some("/redirect/1"));
        assert_eq!(header(&get("/redirect/1"), "location"), Some("/get"));
        assert_eq!(
            header(&get("/redirect/3"), "location"),
            Some("/relative-redirect/2")
        );
        assert_eq!(
            header(&get("/absolute-redirect/2"), "location"),
            Some("http://httpbin:8000/absolute-redirect/1")
        );
        assert_eq!(
            header(
                &get("/redirect-to?url=http%3A%2F%2Fx%2F&status_code=307"),
                "location"
            ),
            Some("http://x/")
        );
        assert_eq!(get("/delay/2").delay, Duration::from_secs(2));
        assert_eq!(get("/delay/100").delay, Duration::from_secs(10));
        assert_eq!(get("/delay/soon").status, 400);
        assert_eq!(get("/post").status, 405);
        assert_eq!(get("/nope").status, 404);
    }

    #[test]
    fn bytes_and_lines_have_their_number_and_a_limit() {
        assert_eq!(body(&get("/stream/3")).lines().count(), 3);
        assert_eq!(get("/stream/1000").parts.len(), MOST_LINES);
        assert_eq!(get("/bytes/100").parts[0].len(), 100);
        assert_eq!(get("/bytes/999999999").parts[0].len(), MOST_BYTES);
    }

    #[test]
    fn credentials_and_cookies_are_checked_and_told() {
        let basic = |value| {
            ask(
                Shape::Go,
                "GET",
                "/basic-auth/u/p",
                &[("authorization", value)],
                "",
            )
            .status
        };
        assert_eq!(basic("Basic dTpw"), 200);
        assert_eq!(basic("Basic dTpx"), 401);
        assert_eq!(
            header(&get("/cookies/set?a=b"), "set-cookie"),
            Some("a=b; Path=/")
        );
        let told = ask(
            Shape::Python,
            "GET",
            "/cookies",
            &[("cookie", "a=b; c=d")],
            "",
        );
        assert!(body(&told).contains("\"c\": \"d\""));
    }
}
