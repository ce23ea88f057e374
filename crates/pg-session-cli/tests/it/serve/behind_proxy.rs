//! What the tests of proxies share: an application in Python that has no code for sessions, and the snippets of `docs/serve.md`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Answers with the headers that it was sent.
const APPLICATION: &str = r#"
import http.server, json
class Application(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps([[name.lower(), value] for name, value in self.headers.items()]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
print(server.server_port, flush=True)
server.serve_forever()
"#;
pub const SECRET: &str = "a-secret-of-the-proxy-0123456789abcdef";

/// A child that ends with the test.
pub struct Process(Child);

impl Process {
    /// `None` if the program is not installed.
    pub fn start(command: &mut Command) -> Option<Self> {
        let name = command.get_program().display().to_string();
        match command.stdin(Stdio::null()).spawn() {
            Ok(child) => Some(Self(child)),
            Err(error) => {
                eprintln!("skipped: {name}: {error}; install {name}");
                None
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The snippet of the documentation that begins so, with the addresses of this test.
pub fn snippet(beginning: &str, serve: &str, application: u16) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/serve.md");
    let page = fs::read_to_string(page).expect("docs/serve.md");
    let snippet = page.split("```text\n").find(|block| block.starts_with(beginning)).expect("a snippet");
    let snippet = snippet.split("```").next().unwrap_or_default();
    for documented in ["127.0.0.1:7480", "THE_SECRET"] {
        assert!(snippet.contains(documented), "the snippet does not name {documented}");
    }
    snippet
        .replace("127.0.0.1:7480", serve.trim_start_matches("http://"))
        .replace("127.0.0.1:8000", &format!("127.0.0.1:{application}"))
        .replace("THE_SECRET", SECRET)
}

/// The application and its port.
pub fn python() -> Option<(Process, u16)> {
    let mut command = Command::new("python3");
    command.args(["-c", APPLICATION]).stdout(Stdio::piped());
    let mut process = Process::start(&mut command)?;
    let out = process.0.stdout.take().expect("stdout is a pipe");
    let mut port = String::new();
    BufReader::new(out).read_line(&mut port).expect("the port");
    Some((process, port.trim().parse().expect("a port")))
}

/// What the application receives of a header, whatever a client has sent.
pub fn received(body: &str, name: &str) -> Vec<String> {
    let headers: Vec<(String, String)> = serde_json::from_str(body).expect("JSON");
    headers.into_iter().filter(|(found, _)| found == name).map(|(_, value)| value).collect()
}
