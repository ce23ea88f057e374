//! A headless Chromium, led by chromedriver over the WebDriver protocol: the few commands that these tests need.
//!
//! By hand, because the crates for it bring an MPL licence and twenty crates into the tree, for what is one JSON request a
//! command.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use std::{env, fs, process, thread};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::http::HttpBrowser;
use crate::support::{POLL_INTERVAL, WAIT_MAX};

/// By which the protocol marks an element (W3C WebDriver, 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

const START_ATTEMPTS_MAX: u32 = 5;

/// A running chromedriver, which gives each browser an empty profile of its own. Dropping it ends them and removes what they
/// left.
pub struct Driver {
    child: Child,
    url: String,
    folder: PathBuf,
}

/// A browser with one window.
pub struct Browser {
    http: HttpBrowser,
    session: String,
}

impl Driver {
    pub fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("pg-session-browser-{}-{number}", process::id()));
        fs::create_dir(&folder).expect("a folder for profiles");
        let (child, port) = (0..START_ATTEMPTS_MAX)
            .find_map(|_| Self::start_process(&folder))
            .expect("chromedriver names its port");
        Self { child, url: format!("http://127.0.0.1:{port}"), folder }
    }

    /// Returns nothing if chromedriver ended before it named its port. It takes a free port of IPv4, then needs the same
    /// port of IPv6, which another program may have.
    fn start_process(folder: &Path) -> Option<(Child, u16)> {
        let mut command = Command::new("chromedriver");
        // A group of its own, to which its browsers belong.
        command.arg("--port=0").env("TMPDIR", folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "chromedriver: {error}; install chromium and chromium-driver, or run ./dev test, which does"
            )
        });
        let out = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let port = out.lines().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        if port.is_none() {
            eprintln!("chromedriver ended without naming its port: {}", child.wait().expect("its status"));
        }
        Some((child, port?))
    }

    pub async fn browser(&self) -> Browser {
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ];
        let options = json!({ "browserName": "chrome", "goog:chromeOptions": { "args": args } });
        let mut http = HttpBrowser::new();
        let body = json!({ "capabilities": { "alwaysMatch": options } });
        let answer = http.post(&format!("{}/session", self.url), &body).await.json();
        let id = answer["value"]["sessionId"].as_str().expect("a session");
        Browser { session: format!("{}/session/{id}", self.url), http }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).expect("a process id");
        // An error means that all have ended.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        let _ = self.child.wait();
        // A browser that is just dying may still write.
        let began = Instant::now();
        while fs::remove_dir_all(&self.folder).is_err() && self.folder.exists() {
            assert!(began.elapsed() < WAIT_MAX, "cannot remove {}", self.folder.display());
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Browser {
    pub async fn open(&mut self, url: &str) {
        self.command("url", &json!({ "url": url })).await;
    }

    pub async fn click(&mut self, css: &str) {
        self.wait_for(&format!("document.querySelector('{css}')?.checkVisibility()")).await;
        let element = self.element(css).await;
        self.command(&format!("{element}/click"), &json!({})).await;
    }

    /// Chooses an option of a list by mouse. Options of a closed list are not visible.
    pub async fn choose(&mut self, list: &str, value: &str) {
        self.wait_for(&format!("document.querySelector('{list}')?.checkVisibility()")).await;
        let option = self.element(&format!("{list} option[value={value}]")).await;
        self.command(&format!("{option}/click"), &json!({})).await;
        self.wait_for(&format!("document.querySelector('{list}').value === '{value}'")).await;
    }

    pub async fn type_into(&mut self, css: &str, text: &str) {
        self.wait_for(&format!("document.querySelector('{css}')?.checkVisibility()")).await;
        let element = self.element(css).await;
        self.command(&format!("{element}/value"), &json!({ "text": text })).await;
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub async fn press(&mut self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.command("actions", &json!({ "actions": [keyboard] })).await;
    }

    /// Moves the focus with the key Tab, as far as a page's elements go.
    pub async fn tab_to(&mut self, css: &str) {
        const ELEMENTS_MAX: usize = 60;
        self.wait_for(&format!("document.querySelector('{css}')?.checkVisibility()")).await;
        for _ in 0..ELEMENTS_MAX {
            if self.eval(&format!("document.activeElement?.matches('{css}') ?? false")).await == json!(true) {
                let outline = "getComputedStyle(document.activeElement).outlineStyle";
                assert_ne!(self.eval(outline).await, "none", "the focus on {css} is not visible");
                return;
            }
            self.press("\u{e004}").await;
        }
        panic!("the key Tab never reaches {css}");
    }

    /// Waits until this expression of JavaScript is true in the page.
    pub async fn wait_for(&mut self, expression: &str) {
        let began = Instant::now();
        while self.eval(expression).await != json!(true) {
            let page = self.eval("document.body.innerText").await;
            assert!(began.elapsed() < WAIT_MAX, "never true: {expression}; the page says: {page}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    pub async fn eval(&mut self, expression: &str) -> Value {
        self.command("execute/sync", &json!({ "script": format!("return {expression}"), "args": [] })).await
    }

    /// As on a screen of this size, in CSS pixels.
    pub async fn screen(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", &size).await;
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &media).await;
    }

    /// What the window shows, as PNG.
    pub async fn picture(&mut self) -> Vec<u8> {
        let url = format!("{}/screenshot", self.session);
        let answer = self.http.json(&url).await;
        STANDARD.decode(answer["value"].as_str().expect("a picture")).expect("base64")
    }

    /// Without it, the browser is ended with its driver.
    pub async fn close(mut self) {
        let session = self.session.clone();
        self.http.send(Method::DELETE, &session, "", String::new()).await.json();
    }

    async fn element(&mut self, css: &str) -> String {
        let found = self.command("element", &json!({ "using": "css selector", "value": css })).await;
        format!("element/{}", found[ELEMENT].as_str().expect("an element"))
    }

    async fn devtools(&mut self, command: &str, params: &Value) {
        self.command("goog/cdp/execute", &json!({ "cmd": command, "params": params })).await;
    }

    async fn command(&mut self, command: &str, body: &Value) -> Value {
        let mut answer = self.http.post(&format!("{}/{command}", self.session), body).await.json();
        answer["value"].take()
    }
}
