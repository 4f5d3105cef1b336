//! Headless Chromium, driven over its DevTools protocol: pages, keys, screenshots, what went wrong.
//! Each browser has a profile of its own and asks nobody on the network but the page's own server.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::{Scratch, wait_until};

/// A browser with one tab.
pub struct Browser {
    child: Child,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    calls: u64,
    /// What the page could not do: exceptions, and what its policy refused.
    pub complaints: Vec<String>,
    _profile: Scratch,
}

impl Browser {
    pub fn start() -> Browser {
        let profile = Scratch::new("chromium");
        let mut command = Command::new("chromium");
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.0.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.arg("about:blank").spawn().expect("chromium is installed by tests/run");
        let file = profile.join("DevToolsActivePort");
        let mut told = String::new();
        wait_until("chromium tells its port", START_TIME, || {
            told = std::fs::read_to_string(&file).unwrap_or_default();
            told.lines().count() == 2
        });
        let (port, path) = told.trim().split_once('\n').unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
        stream.set_read_timeout(Some(START_TIME)).unwrap();
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = tungstenite::client(url, stream).unwrap();
        let mut browser = Browser {
            child,
            socket,
            session: None,
            calls: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let to = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", to);
        browser.session = session["sessionId"].as_str().map(str::to_string);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol, and waits for what it returns.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(message.to_string())).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else { continue };
            let told: Value = serde_json::from_str(&text).unwrap();
            if told["id"] == self.calls {
                assert!(told["error"].is_null(), "{method}: {told}");
                return told["result"].clone();
            }
            self.note(&told);
        }
    }

    fn note(&mut self, told: &Value) {
        let params = &told["params"];
        let is_exception = told["method"] == "Runtime.exceptionThrown";
        // That a request failed is said by the page itself.
        let is_error = told["method"] == "Log.entryAdded"
            && params["entry"]["level"] == "error"
            && params["entry"]["source"] != "network";
        if is_exception || is_error {
            self.complaints.push(params.to_string());
        }
    }

    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
    }

    /// How large the page is, in CSS pixels; a phone's screen is denser.
    pub fn resize(&mut self, width: u32, height: u32) {
        let is_phone = width < 500;
        let size = json!({"width": width, "height": height, "mobile": is_phone,
            "deviceScaleFactor": if is_phone { 2 } else { 1 }});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Which scheme of colours the system prefers, `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.call("Emulation.setEmulatedMedia", json!({"features": [feature]}));
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let told = self.call("Runtime.evaluate", params);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        told["result"]["value"].clone()
    }

    /// The text of the first element that a selector names; empty where there is none.
    #[track_caller]
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?})?.textContent ?? ''"));
        text.as_str().unwrap_or_default().to_string()
    }

    /// Waits until an expression in the page is true; while the page is loaded it may fail.
    #[track_caller]
    pub fn wait_for(&mut self, expression: &str) {
        let tried =
            format!("(() => {{ try {{ return {expression} }} catch {{ return false }} }})()");
        wait_until(expression, WAIT, || self.value(&tried) == true);
    }

    /// Presses keys as a user does: `Tab`, `Enter`, `Escape`, `ArrowDown`, `Space`, or characters.
    pub fn press(&mut self, keys: &[&str]) {
        for key in keys {
            let (name, code, number, text) = match *key {
                "Tab" => ("Tab", "Tab", 9, ""),
                "Enter" => ("Enter", "Enter", 13, "\r"),
                "Escape" => ("Escape", "Escape", 27, ""),
                "ArrowDown" => ("ArrowDown", "ArrowDown", 40, ""),
                "Space" => (" ", "Space", 32, " "),
                other => (other, "", 0, other),
            };
            let event = |kind: &str| {
                json!({"type": kind, "key": name, "code": code, "windowsVirtualKeyCode": number,
                    "text": if kind == "keyDown" { text } else { "" }})
            };
            self.call("Input.dispatchKeyEvent", event("keyDown"));
            self.call("Input.dispatchKeyEvent", event("keyUp"));
        }
    }

    /// Keeps a picture of the whole page, 3,000 pixels of it at most, under tests/output.
    pub fn keep_picture(&mut self, name: &str) -> PathBuf {
        let layout = self.call("Page.getLayoutMetrics", json!({}));
        let size = &layout["cssContentSize"];
        let height = size["height"].as_f64().unwrap().min(3000.0);
        let clip = json!({"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1});
        let params = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let told = self.call("Page.captureScreenshot", params);
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/output"));
        std::fs::create_dir_all(directory).unwrap();
        let path = directory.join(name);
        std::fs::write(&path, STANDARD.decode(told["data"].as_str().unwrap()).unwrap()).unwrap();
        path
    }

    /// Ends it; the page must have had nothing to complain of.
    #[track_caller]
    pub fn close(self) {
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes end with the first.
        self.child.kill().ok();
        self.child.wait().unwrap();
    }
}

/// As it runs without a screen, as root, and without asking anything of the network by itself.
const FLAGS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
];
/// How long it may take to start, and to answer.
const START_TIME: Duration = Duration::from_secs(30);
/// How long a page may take to show something.
const WAIT: Duration = Duration::from_secs(15);
