//! A real Chromium without a window, driven over the DevTools protocol.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{process, until};

/// Where distributions put it.
const PLACES: [&str; 3] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
];

/// One page in a browser of its own.
pub struct Browser {
    child: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    next: u64,
    /// Errors that the page wrote to its console or that the browser found in it. Answers of the
    /// network with an error status are not among them: tests cause those on purpose.
    pub errors: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// A browser with an empty page of this size; none, with the reason printed, where there is no
    /// Chromium and this is not CI.
    pub async fn start(width: u32, height: u32) -> Option<Self> {
        let Some(program) = PLACES.iter().find(|place| Path::new(place).exists()) else {
            let reason = format!("no Chromium at any of {PLACES:?}: apt-get install chromium");
            assert!(std::env::var_os("CI").is_none(), "{reason}");
            eprintln!("skipped: {reason}");
            return None;
        };
        let profile = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(program);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args([
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--force-color-profile=srgb",
                "--lang=en-US",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--remote-debugging-port=0", "about:blank"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = process::spawn(&mut command);
        let file = profile.path().join("DevToolsActivePort");
        let (port, path) = until("Chromium says where it listens", async || {
            let text = std::fs::read_to_string(&file).ok()?;
            let (port, path) = text.trim().split_once('\n')?;
            Some((port.parse::<u16>().ok()?, path.to_owned()))
        })
        .await;
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = tokio_tungstenite::connect_async(url)
            .await
            .expect("connected");
        let mut browser = Self {
            child,
            socket,
            session: String::new(),
            next: 0,
            errors: Vec::new(),
            _profile: profile,
        };
        let target = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({})).await;
        }
        browser.resize(width, height).await;
        Some(browser)
    }

    /// Calls a method of the protocol; what the page reports meanwhile is kept.
    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let text = message.to_string();
        self.socket.send(Message::text(text)).await.expect("sent");
        loop {
            let message = self
                .socket
                .next()
                .await
                .expect("Chromium is there")
                .expect("a message");
            let Ok(text) = message.to_text() else {
                continue;
            };
            let message: Value = serde_json::from_str(text).unwrap_or_default();
            if message["id"] == self.next {
                assert!(
                    message.get("error").is_none(),
                    "{method}: {}",
                    message["error"]
                );
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.errors.push(parameters.to_string()),
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                self.errors.push(parameters["args"].to_string());
            }
            Some("Log.entryAdded")
                if parameters["entry"]["level"] == "error"
                    && parameters["entry"]["source"] != "network" =>
            {
                self.errors.push(parameters["entry"].to_string());
            }
            _ => {}
        }
    }

    /// Makes the window as large as this, in CSS pixels.
    pub async fn resize(&mut self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// From now on the person prefers dark pages.
    pub async fn dark(&mut self) {
        let feature = json!({"name": "prefers-color-scheme", "value": "dark"});
        self.call("Emulation.setEmulatedMedia", json!({"features": [feature]}))
            .await;
    }

    pub async fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({"url": url})).await;
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
    }

    /// The value of a JavaScript expression; promises are awaited.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let parameters =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", parameters).await;
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true. What went wrong with it in between (the page is still
    /// being loaded) counts as false.
    pub async fn wait(&mut self, expression: &str) {
        let guarded = format!(
            "(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()"
        );
        until(expression, async || {
            (self.eval(&guarded).await == true).then_some(())
        })
        .await;
    }

    /// The text of the first element a selector finds.
    pub async fn text(&mut self, selector: &str) -> String {
        let expression = format!("document.querySelector({selector:?}).innerText");
        let text = self.eval(&expression).await;
        text.as_str()
            .unwrap_or_else(|| panic!("nothing at {selector}"))
            .to_owned()
    }

    pub async fn click(&mut self, selector: &str) {
        self.eval(&format!("document.querySelector({selector:?}).click()"))
            .await;
    }

    /// Presses and releases a key where the focus is.
    pub async fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "ArrowRight" => (39, ""),
            other => panic!("no key {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Writes text where the focus is, as an input method would.
    pub async fn write(&mut self, selector: &str, text: &str) {
        self.eval(&format!("document.querySelector({selector:?}).focus()"))
            .await;
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// A picture of the whole page, kept when `PAGE_PICTURES` names a directory.
    pub async fn picture(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("PAGE_PICTURES") else {
            return;
        };
        let parameters = json!({"format": "png", "captureBeyondViewport": true});
        let answer = self.call("Page.captureScreenshot", parameters).await;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(answer["data"].as_str().expect("a picture"))
            .expect("base64");
        let path = Path::new(&directory).join(format!("{name}.png"));
        std::fs::write(path, bytes).expect("written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}
